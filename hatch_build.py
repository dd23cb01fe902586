# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernel-side programs into the package when a wheel is built.

An editable install is built as a wheel too, so it gets them as well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent / "src"))

from xdpkit.compiler import Compiler, compile, find_compilers

# Its own programs, and the examples, which the package carries as text, too.
_SOURCES = ("bpf/*.c", "src/xdpkit/examples/*.c")


class CompileBpf(BuildHookInterface[Any]):
    """Writes ``src/xdpkit/_bpf/NAME.o`` for each source ``NAME.c``."""

    def dependencies(self) -> list[str]:
        """Return what the build needs from the package index: nothing where there is a clang."""
        if any(_is_clang(compiler) for compiler in find_compilers()):
            return []
        _tell("no clang with a BPF target on PATH: fetching ziglang (100 MB) to compile with")
        return ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        objects = root / "src" / "xdpkit" / "_bpf"
        objects.mkdir(exist_ok=True)
        for stale in objects.glob("*.o"):
            stale.unlink()
        compiler = next(iter(find_compilers()), None)
        for source in (path for pattern in _SOURCES for path in sorted(root.glob(pattern))):
            if compiler is not None and not _is_clang(compiler):
                name = source.relative_to(root)
                _tell(f"compiling {name} with {compiler.name} (the first takes a while)")
            compile(source, objects / f"{source.stem}.o", compiler=compiler)


def _is_clang(compiler: Compiler) -> bool:
    return compiler.name != "ziglang"


def _tell(message: str) -> None:
    """Show a line to the person who waits; pip keeps a build's own output to itself."""
    try:
        with open("/dev/tty", "w") as terminal:
            # pip is in the middle of a line of its own.
            terminal.write(f"\nxdpkit: {message}\n")
    except OSError:
        print(f"xdpkit: {message}", file=sys.stderr)
