# SPDX-License-Identifier: Apache-2.0
"""How long a load takes beside libbpf's own, the kernel's part taken off both.

One cycle is: open the file, load all of it, close everything. From its wall time the time within
bpf(2) is subtracted, which a preloaded syscall() measures for both sides with the same clock
(``clock.c``). Cycles of the two alternate, so that both meet the same noise, and the median is
taken. Both are warm: what they learn once in a process (probes, the kernel's types) is known.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import oracle
from tests.corpus import build, generate

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "bench"

CYCLES = 15

# With CO-RE, libbpf reads the kernel's types anew for each object, xdpkit once in a process.
SHAPES = {"one function": {}, "64 subprograms": {"functions": 64}, "CO-RE": {"fields": 64}}


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians in microseconds, without the time in bpf(2)."""

    name: str
    xdpkit: float
    libbpf: float
    kernel: float

    @property
    def ratio(self) -> float:
        """How many times libbpf's time ours is."""
        return self.xdpkit / self.libbpf


def main() -> None:
    """Print a line for each object."""
    print("Load time without bpf(2): microseconds, medians of", CYCLES, "cycles each, warm")
    print(f"{'':28}{'xdpkit':>10}{'libbpf':>10}{'ratio':>8}{'in bpf(2)':>12}")
    for figure in measure(objects()):
        print(
            f"{figure.name:28}{figure.xdpkit:10.0f}{figure.libbpf:10.0f}{figure.ratio:8.1f}"
            f"{figure.kernel:12.0f}",
            flush=True,
        )


def objects() -> dict[str, Path]:
    """Return the objects to load, built with the newest compiler of this machine."""
    clangs = [compiler for compiler in build.compilers() if compiler.family in ("clang", "zig")]
    if not clangs:
        raise SystemExit("bench: no clang and no ziglang: pip install ziglang")
    compiler = next((c for c in reversed(clangs) if c.family == "clang"), clangs[0])
    CACHE.mkdir(parents=True, exist_ok=True)
    found = {"packet.c": build.build(build.FOLDER / "packet.c", compiler).path}
    for instructions in (4000, 20000):
        for label, options in SHAPES.items():
            source = CACHE / f"big{instructions}_{label.replace(' ', '_').replace('-', '')}.c"
            source.write_text(generate.source(instructions, **options))
            found[f"{instructions:,}, {label}"] = build.build(source, compiler).path
    return found


def measure(paths: dict[str, Path]) -> list[Figure]:
    """Measure in a process of its own, in which syscall() is ours."""
    root = str(HERE.parent)
    environment = {**os.environ, "LD_PRELOAD": str(_clock())}
    search = (root, os.path.join(root, "src"), os.environ.get("PYTHONPATH", ""))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
    figures = []
    for name, path in paths.items():
        command = (sys.executable, "-m", "bench.load", str(path))
        output = subprocess.run(
            command, env=environment, cwd=root, check=True, stdout=subprocess.PIPE
        ).stdout
        figures.append(Figure(name, **json.loads(output)))
    return figures


def _measure_here(path: Path) -> dict[str, float]:
    import xdpkit

    def ours() -> None:
        with xdpkit.load_all(xdpkit.read(path)):
            pass

    theirs = oracle.Cycle(path).load
    clock = ctypes.c_ulonglong.in_dll(ctypes.CDLL(None), "bpf_nanoseconds")
    times: dict[Callable[[], None], list[tuple[int, int]]] = {ours: [], theirs: []}
    for cycle in times:
        cycle()
    for _ in range(CYCLES):
        for cycle, results in times.items():
            kernel = clock.value
            start = time.perf_counter_ns()
            cycle()
            elapsed = time.perf_counter_ns() - start
            kernel = clock.value - kernel
            results.append((elapsed - kernel, kernel))
    outside = {
        cycle: statistics.median(outside for outside, _ in results) / 1000
        for cycle, results in times.items()
    }
    kernel_time = statistics.median(kernel for _, kernel in times[theirs]) / 1000
    return {"xdpkit": outside[ours], "libbpf": outside[theirs], "kernel": kernel_time}


def _clock() -> Path:
    source, library = HERE / "clock.c", CACHE / "clock.so"
    if library.exists() and library.stat().st_mtime >= source.stat().st_mtime:
        return library
    CACHE.mkdir(parents=True, exist_ok=True)
    host = shutil.which("cc") or shutil.which("clang")
    compiler = (host,) if host else (sys.executable, "-m", "ziglang", "cc")
    command = (*compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library))
    subprocess.run(command, check=True)
    return library


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(_measure_here(Path(sys.argv[1]))))
    else:
        main()
