# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit status`` costs as a process: wall time and peak memory."""

from __future__ import annotations

import os
import statistics
import sys
import time

RUNS = 15


def main() -> None:
    """Print the median wall time and memory of the command, and of Python doing nothing."""
    print("As a process: medians of", RUNS, "runs")
    for name, arguments in {
        "xdpkit status": ("-m", "xdpkit", "status"),
        "python -c pass": ("-c", "pass"),
    }.items():
        seconds, kibibytes = zip(*(_run(arguments) for _ in range(RUNS)), strict=True)
        print(
            f"{name:28}{statistics.median(seconds) * 1000:10.0f} ms"
            f"{statistics.median(kibibytes) / 1024:10.1f} MiB"
        )


def _run(arguments: tuple[str, ...]) -> tuple[float, int]:
    nothing = os.open(os.devnull, os.O_WRONLY)
    start = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, nothing, fd) for fd in (1, 2)],
    )
    _, status, usage = os.wait4(child, 0)
    elapsed = time.perf_counter() - start
    os.close(nothing)
    if status:
        raise SystemExit(f"bench: {' '.join(arguments)} ended with status {status:#x}")
    return elapsed, usage.ru_maxrss


if __name__ == "__main__":
    main()
