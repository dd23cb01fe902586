# SPDX-License-Identifier: Apache-2.0
"""What the loader reads about the running system from /proc, /sys and /boot."""

from __future__ import annotations

import functools
import gzip
import os
import platform
import re
from collections.abc import Collection

from xdpkit.errors import RequirementUnmet


@functools.cache
def possible_cpus() -> int:
    """Return how many CPUs the kernel has room for: per-CPU values have one entry for each."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        return count_cpus(file.read())


def count_cpus(text: str) -> int:
    """Return how many CPUs a list like ``0-3,8`` names."""
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def read_configuration() -> dict[str, str]:
    """Return the running kernel's configuration by ``CONFIG_`` name.

    Raises:
        RequirementUnmet: the system does not tell it.
    """
    from xdpkit.kernel import kconfig

    boot = f"/boot/config-{os.uname().release}"
    for path in (boot, "/proc/config.gz"):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            continue
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return kconfig.parse(text.decode("utf-8", "replace"))
    raise RequirementUnmet(
        "read the kernel's configuration",
        cause=f"there is neither {boot} nor /proc/config.gz",
        remedy="modprobe configs, if the kernel has it as a module (CONFIG_IKCONFIG)",
    )


def kernel_version() -> int:
    """Return ``LINUX_VERSION_CODE`` of the running kernel.

    Ubuntu's ``uname -r`` lacks the patch level, its /proc/version_signature has it.
    """
    try:
        with open("/proc/version_signature", encoding="ascii", errors="replace") as file:
            release = file.read().split()[-1]
    except (OSError, IndexError):
        release = os.uname().release
    return version_code(release)


def version_code(release: str) -> int:
    """Return ``KERNEL_VERSION(a, b, c)`` of a release name, 0 if it has no such beginning."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", release)
    if match is None:
        return 0
    major, minor, patch = map(int, match.groups())
    return (major << 16) + (minor << 8) + min(patch, 255)


def read_kallsyms(names: Collection[str]) -> dict[str, set[int]]:
    """Return the addresses that /proc/kallsyms has for the given symbols; 0 if hidden.

    Raises:
        RequirementUnmet: it cannot be read.
    """
    try:
        with open("/proc/kallsyms", "rb") as file:
            return find_symbols(file.read(), names)
    except OSError as error:
        raise RequirementUnmet(
            "look up kernel symbols", cause=f"/proc/kallsyms: {error.strerror}"
        ) from None


def find_symbols(kallsyms: bytes, names: Collection[str]) -> dict[str, set[int]]:
    """Return the addresses of the given symbols in the text of /proc/kallsyms."""
    found: dict[str, set[int]] = {}
    for name in names:
        # "ffffffff81000000 T name", and "\t[module]" behind a module's.
        pattern = rb"^([0-9a-f]+) \S " + re.escape(name.encode()) + rb"(?=[\t\n]|\Z)"
        for match in re.finditer(pattern, kallsyms, re.MULTILINE):
            found.setdefault(name, set()).add(int(match[1], 16))
    return found


# The prefix of system calls' symbols: CONFIG_ARCH_HAS_SYSCALL_WRAPPER.
_SYSCALL_PREFIX = {
    "x86_64": "x64",
    "i686": "ia32",
    "aarch64": "arm64",
    "s390x": "s390x",
    "riscv64": "riscv",
    "ppc64le": "powerpc",
    "ppc64": "powerpc",
}


def has_syscall_wrapper() -> bool:
    """Whether system calls are ``__x64_sys_bpf`` and the like, not ``sys_bpf``."""
    prefix = _SYSCALL_PREFIX.get(platform.machine())
    if prefix is None:
        return False
    name = f"__{prefix}_sys_bpf"
    return bool(read_kallsyms((name,)))
