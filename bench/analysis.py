# SPDX-License-Identifier: Apache-2.0
"""How long it takes to find what a program needs, and to hold that against an interface.

Analysis is of programs already read and linked; CPU time, the median of some rounds. A check is all
of ``xdpkit check`` within a process: analysis, findings about a veth by netlink, verdicts.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.load import objects
from tests.kernel.net import make_veth, namespace
from xdpkit import check, read
from xdpkit.analysis import analyse, subject_of

ROUNDS = 7
PACKAGED = sorted(Path("/usr/lib").glob("*/bpf/xdpfilt_alw_all.o"))


def main() -> None:
    """Print a line for each program."""
    print("What a program needs: CPU milliseconds, medians of", ROUNDS, "rounds, warm")
    print(f"{'':28}{'insns':>8}{'analysis':>10}{'per 1,000':>11}{'check':>10}")
    with namespace() as netns:
        veth = make_veth(netns)
        for name, path in {**objects(), **{path.stem: path for path in PACKAGED}}.items():
            spec = next(iter(read(path).programs.values()))
            length = len(spec.link().code) // 8
            alone = _median(functools.partial(analyse, subject_of(spec)))
            whole = _median(functools.partial(check, spec, veth.name, netns=netns))
            print(f"{name:28}{length:8}{alone:10.1f}{alone / length * 1000:11.1f}{whole:10.1f}")


def _median(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times) * 1000
