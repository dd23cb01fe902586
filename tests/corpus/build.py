# SPDX-License-Identifier: Apache-2.0
"""Compiles the corpus with every BPF compiler of this machine, once for each content.

A source says what it needs in its first lines::

    // flags: -mcpu=v4               added to the compiler's own
    // compilers: clang>=18 zig      those that can compile it; all, without this line
    // needs: Linux 6.9              what other kernels lack, and so refuse it for

gcc-bpf 12 is left out where libbpf or the kernel refuses what it makes: BTF with encodings that no
kernel knows, externs without types, calls of its own runtime (``__bswapdi2``), offsets in ``.data``
counted twice.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
CACHE = FOLDER.parents[1] / ".cache" / "corpus"

CLANG_VERSIONS = range(14, 20)
_TIME_LIMIT = 600  # seconds; the first run of zig compiles its own runtime


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that is present: ``name`` is unique, ``command`` lacks source and output."""

    name: str
    family: str
    version: int
    command: tuple[str, ...]
    identity: str


@dataclass(frozen=True, slots=True)
class Built:
    """An object file, and what made it."""

    path: Path
    compiler: str

    def __str__(self) -> str:
        return f"{self.path.stem}-{self.compiler}"


class CompileFailed(Exception):
    """The compiler refused a source that it ought to compile."""


@functools.cache
def compilers() -> tuple[Compiler, ...]:
    """Return the BPF compilers of this machine: every clang there is, zig, gcc."""
    found = []
    command: tuple[str, ...]
    for version in CLANG_VERSIONS:
        if path := shutil.which(f"clang-{version}"):
            command = (path, "-target", "bpf", "-mcpu=v3", "-O2", "-g")
            found.append(
                Compiler(f"clang-{version}", "clang", version, command, _says_version(path))
            )
    if importlib.util.find_spec("ziglang"):
        zig = (sys.executable, "-m", "ziglang", "cc", "-target", "bpfel-freestanding")
        command = (*zig, "-mcpu=v3", "-O2", "-g")
        identity = importlib.metadata.version("ziglang")
        found.append(Compiler("zig", "zig", 0, command, identity))
    if path := shutil.which("bpf-gcc"):
        command = (path, "-O2", "-gbtf", "-mco-re")
        found.append(Compiler("gcc-bpf", "gcc-bpf", 0, command, _says_version(path)))
    return tuple(found)


def sources() -> list[Path]:
    """Return the corpus: each is one translation unit."""
    return sorted(FOLDER.glob("*.c"))


def variants(source: Path) -> list[Built]:
    """Return the source's object of each compiler that can compile it.

    Raises:
        CompileFailed: with what the compiler printed.
    """
    return [build(source, compiler) for compiler in compilers() if suits(source, compiler)]


def build(source: Path, compiler: Compiler, *, flags: Iterable[str] = ()) -> Built:
    """Return the object of `source`, from the cache if neither it nor its compiler changed.

    Raises:
        CompileFailed: with what the compiler printed.
    """
    extra = (*_directive(source, "flags"), *flags)
    digest = hashlib.sha256()
    for part in (compiler.identity, *compiler.command, *extra):
        digest.update(part.encode() + b"\0")
    for file in (source, *sorted(FOLDER.glob("*.h"))):
        digest.update(file.read_bytes() + b"\0")
    # The folder makes the name unique: libbpf derives the names of data maps from the file's.
    target = CACHE / digest.hexdigest()[:24] / f"{source.stem}.o"
    if not target.exists():
        _compile((*compiler.command, *extra), source, target)
    return Built(target, compiler.name)


def transformed(built: Built, label: str, change: Callable[[bytes], bytes]) -> Built:
    """Return a changed copy of an object, `label` being what tells it from the original."""
    target = built.path.parent / label / built.path.name
    target.parent.mkdir(exist_ok=True)
    _write(target, change(built.path.read_bytes()))
    return Built(target, f"{built.compiler}-{label}")


def without_line_info(data: bytes) -> bytes:
    """Hide ``.BTF.ext`` under a name that no loader looks for; types stay."""
    return data.replace(b".BTF.ext\0", b".XTF.ext\0")


def suits(source: Path, compiler: Compiler) -> bool:
    """Return whether the compiler can compile the source, by what the source says."""
    wanted = _directive(source, "compilers")
    if not wanted:
        return True
    for term in wanted:
        family, _, least = term.partition(">=")
        if family == compiler.family and compiler.version >= int(least or 0):
            return True
    return False


def needs(source: Path) -> str:
    """Return what a kernel must have to load the source; empty for what every kernel has."""
    return " ".join(_directive(source, "needs"))


def _directive(source: Path, name: str) -> tuple[str, ...]:
    match = re.search(rf"^// {name}: (.*)$", source.read_text(), re.MULTILINE)
    return tuple(match[1].split()) if match else ()


def _compile(command: tuple[str, ...], source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        output = Path(folder) / "out.o"
        result = subprocess.run(
            (*command, f"-I{FOLDER}", "-c", str(source), "-o", str(output)),
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=False,
        )
        if result.returncode:
            raise CompileFailed(f"{' '.join(command)} {source.name}\n{result.stderr}")
        output.replace(target)


def _write(target: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, target)


def _says_version(path: str) -> str:
    return subprocess.run((path, "--version"), capture_output=True, text=True, check=True).stdout
