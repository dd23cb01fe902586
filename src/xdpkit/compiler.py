# SPDX-License-Identifier: Apache-2.0
"""C sources into BPF object files, with clang or with the PyPI package ``ziglang``.

Used by ``xdpkit build`` and, before anything of xdpkit is installed, by the package's build hook:
so this module needs the standard library and :mod:`xdpkit.errors` only.

An object depends on the source, the headers and the compiler alone, not on where they lie: file
names in its debug information are relative to the source's folder.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xdpkit.errors import CompileError, UsageError

INCLUDE_DIR = Path(__file__).parent / "include"
"""The folder of ``xdpkit.h``; it is on the include path of every compilation."""

_INSTALL_A_COMPILER = "apt-get install clang, or pip install 'xdpkit[compile]'"
_CAUSE_LINES = 3
_FREESTANDING = {"little": "bpfel-freestanding", "big": "bpfeb-freestanding"}
_MISSING_HEADER = re.compile(r"'((?:linux|asm|asm-generic|bpf)/[^']+)' file not found")


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler with a BPF target.

    Attributes:
        name: "clang", "clang-19", or "ziglang".
        command: how it is started; flags follow.
        target: flags that choose BPF, in the byte order of this machine.
        system_includes: folders searched last, for ``<linux/…>`` and ``<bpf/…>``.
    """

    name: str
    command: tuple[str, ...]
    target: tuple[str, ...]
    system_includes: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of a compilation.

    Attributes:
        path: the object file.
        compiler: what it was compiled with.
        warnings: what the compiler printed; usually empty.
    """

    path: Path
    compiler: Compiler
    warnings: str


def find_compilers() -> tuple[Compiler, ...]:
    """Return the compilers that can be used here, the preferred one first.

    ``clang`` comes first, then ``clang-NN`` from the newest to the oldest, then ``ziglang``. A
    clang that was built without the BPF target is left out.
    """
    return tuple(_compilers())


def compile(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    compiler: Compiler | str | None = None,
    include: Iterable[str | os.PathLike[str]] = (),
    defines: Iterable[str] = (),
    debug: bool = True,
    cpu: str = "v3",
) -> Compiled:
    """Compile a C source into a BPF object file.

    Args:
        source: the C file.
        output: the object file; beside the source with the suffix ``.o`` when None. It is
            replaced only by a complete object.
        compiler: one of :func:`find_compilers`, or the name of one; the first when None.
        include: folders for ``#include <…>``, searched before xdpkit's own.
        defines: macros, as ``NAME`` or ``NAME=VALUE``.
        debug: whether to write BTF and line information; without BTF there are no maps.
        cpu: version of the instruction set: v3 needs Linux 5.1, v2 runs everywhere.

    Raises:
        CompileError: there is no compiler, or the source does not compile.
        UsageError: the source cannot be read or the output cannot be written.
    """
    source = Path(source).absolute()
    output = source.with_suffix(".o") if output is None else Path(output).absolute()
    what = f"compile {source.name}"
    if not source.is_file():
        raise UsageError(what, cause=f"{source} is not a file")
    if not isinstance(compiler, Compiler):
        compiler = _choose(what, compiler)
    arguments = [
        *compiler.command,
        *compiler.target,
        "-O2",
        f"-mcpu={cpu}",
        *(["-g"] if debug else []),
        "-Wall",
        # zig asks for unwind tables, which nothing in the kernel reads.
        "-fno-unwind-tables",
        "-fdebug-compilation-dir=.",
        f"-ffile-prefix-map={INCLUDE_DIR}=.",
        *(f"-D{define}" for define in defines),
        # Relative to the source: LLVM copies source lines into the BTF by opening these names.
        *(f"-I{os.path.relpath(folder, source.parent)}" for folder in include),
        f"-I{INCLUDE_DIR}",
        *(f"-idirafter{folder}" for folder in compiler.system_includes),
    ]
    try:
        # Beside the file, to replace it at once; a device (/dev/null) is written to instead.
        is_device = output.exists() and not output.is_file()
        beside = None if is_device else output.parent
        with tempfile.TemporaryDirectory(prefix=".xdpkit-", dir=beside) as scratch:
            partial = Path(scratch, output.name)
            run = subprocess.run(
                [*arguments, "-c", source.name, "-o", str(partial)],
                cwd=source.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
            if run.returncode != 0:
                raise _compile_error(what, compiler, run)
            if is_device:
                output.write_bytes(partial.read_bytes())
            else:
                partial.replace(output)
    except OSError as error:
        raise UsageError(what, cause=f"cannot write {output}: {error.strerror}") from error
    return Compiled(output, compiler, run.stdout)


def _compile_error(
    what: str, compiler: Compiler, run: subprocess.CompletedProcess[str]
) -> CompileError:
    telling = [line.strip() for line in run.stdout.splitlines() if "error:" in line]
    cause = "\n".join(telling[:_CAUSE_LINES]) or f"{compiler.name} ended with {run.returncode}"
    header = _MISSING_HEADER.search(cause)
    remedy = None
    if header:
        package = "libbpf-dev" if header[1].startswith("bpf/") else "linux-libc-dev"
        remedy = f"#include <xdpkit.h>, which needs no other header; or apt-get install {package}"
    return CompileError(what, cause=cause, remedy=remedy, log=run.stdout)


def _choose(what: str, name: str | None) -> Compiler:
    found = []
    for candidate in _compilers():
        if name in (None, candidate.name):
            return candidate
        found.append(candidate.name)
    if name is None:
        raise CompileError(
            what, cause="no compiler with a BPF target was found", remedy=_INSTALL_A_COMPILER
        )
    raise CompileError(
        what,
        cause=f"{name} is not a compiler with a BPF target",
        remedy=f"choose from: {', '.join(found)}" if found else _INSTALL_A_COMPILER,
    )


def _compilers() -> Iterator[Compiler]:
    for name, path in _clangs_on_path().items():
        if _has_bpf_target(path):
            yield Compiler(name, (str(path),), ("-target", "bpf"), (_host_includes(),))
    zig = importlib.util.find_spec("ziglang")
    if zig is not None and zig.submodule_search_locations:
        yield Compiler(
            "ziglang",
            (sys.executable, "-m", "ziglang", "cc"),
            ("-target", _FREESTANDING[sys.byteorder]),
            (
                *_zig_linux_headers(Path(zig.submodule_search_locations[0])),
                Path("/usr/include"),
                _host_includes(),
            ),
        )


def _clangs_on_path() -> dict[str, Path]:
    """Return clang and clang-NN by name, in order of preference, each installation once."""
    found: dict[str, Path] = {}
    for folder in os.get_exec_path():
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            path = Path(folder, name)
            if re.fullmatch(r"clang(-\d+)?", name) and os.access(path, os.X_OK):
                found.setdefault(name, path.absolute())
    unique: dict[Path, str] = {}
    for name in sorted(found, key=_preference):
        unique.setdefault(found[name].resolve(), name)
    return {name: found[name] for name in unique.values()}


def _preference(name: str) -> int:
    _, _, version = name.partition("-")
    return -int(version) if version else -sys.maxsize


def _has_bpf_target(clang: Path) -> bool:
    try:
        run = subprocess.run(
            [clang, "--print-targets"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError:
        return False
    return re.search(r"^\s*bpf\s", run.stdout, re.MULTILINE) is not None


def _host_includes() -> Path:
    """Return the folder of ``<asm/…>`` on Debian, where clang does not look for another target."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    return Path("/usr/include", multiarch)


def _zig_linux_headers(package: Path) -> Iterator[Path]:
    headers = package / "lib" / "libc" / "include"
    yield headers / "any-linux-any"
    machine = {"ppc64le": "powerpc"}.get(platform.machine(), platform.machine())
    for folder in headers.glob("*-linux-any"):
        if machine.startswith(folder.name.partition("-")[0]):
            yield folder
