# SPDX-License-Identifier: Apache-2.0
"""What it takes to switch counting on and off where each RX queue has a program of its own.

Each program is loaded again, as a copy that counts or as it was, and put in its place.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench.queues import filled_hook

QUEUES = 64
RUNS = 5


def main() -> None:
    """Print a line for each switch."""
    programs = QUEUES + 1  # and the global one
    print(
        f"Switching counters, {programs} programs: milliseconds, medians of", RUNS, "runs, by turns"
    )
    with filled_hook(QUEUES) as hook:
        counters = hook.counters
        switches: dict[str, Callable[[], object]] = {
            "enable": counters.enable,
            "count bytes, too": lambda: counters.enable(count_bytes=True),
            "disable": counters.disable,
        }
        times: dict[str, list[float]] = {name: [] for name in switches}
        for _ in range(RUNS):
            for name, switch in switches.items():
                start = time.perf_counter()
                switch()
                times[name].append((time.perf_counter() - start) * 1000)
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:28}{median:10.0f} ms{median / programs:8.1f} ms per program")


if __name__ == "__main__":
    main()
