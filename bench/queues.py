# SPDX-License-Identifier: Apache-2.0
"""What it takes to change the programs of RX queues, in process and with programs that are loaded.

One queue is one slot of a program array; several are another root, in one exchange. Beside them, in
the same run and by turns: an update of a slot and nothing else, of an array of as many programs.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import xdpkit
from bench.dispatch import Maker
from tests.kernel.attaching import BPFFS, program
from tests.kernel.net import make_veth, namespace
from xdpkit import Hook
from xdpkit.hook.changes import prepare_replace
from xdpkit.kernel import Program

RUNS = 60
SIZES = (8, 64)
_WIDTH = 44


Parts = tuple[float, float]
Turn = Callable[[], Parts]


def main() -> None:
    """Print a line for each change, and what is aimed at."""
    print("Replacing programs of RX queues: milliseconds, medians of", RUNS, "runs, by turns")
    print(f"{'':{_WIDTH}}{'in all':>8}{'quickest':>10}{'look, negotiate':>18}{'change':>9}")
    with contextlib.ExitStack() as resources:
        turns = dict(_turns(resources))
        times: dict[str, list[Parts]] = {name: [] for name in turns}
        for _ in range(RUNS):
            for name, turn in turns.items():
                times[name].append(turn())
    for name, taken in times.items():
        whole = [prepared + changed for prepared, changed in taken]
        prepared, changed = (_median(part) for part in zip(*taken, strict=True))
        print(
            f"{name:{_WIDTH}}{_median(whole):8.2f}{min(whole) * 1000:10.2f}"
            f"{prepared:18.2f}{changed:9.2f}"
        )
    print("Aim: one queue in less than 1 ms.")


def _median(seconds: Iterable[float]) -> float:
    return statistics.median(seconds) * 1000


def _turns(resources: contextlib.ExitStack) -> Iterator[tuple[str, Turn]]:
    """Yield what exchanges two programs, and returns how long it took: to prepare, and to do."""
    pair = [resources.enter_context(xdpkit.load(program())) for _ in range(2)]
    for size in SIZES:
        yield f"a slot of {size} and nothing else", _slot(size, pair, resources)
        hook = resources.enter_context(filled_hook(size))
        yield f"one queue of {size}", _replace(hook, frozenset({3}), pair)
        yield f"four queues of {size}: another root", _replace(hook, frozenset(range(4, 8)), pair)


def _slot(size: int, pair: list[Program], resources: contextlib.ExitStack) -> Turn:
    make = Maker(resources)
    _, array = make.root([make.program() for _ in range(size)], make.program())
    programs = itertools.cycle(pair)

    def turn() -> Parts:
        new = next(programs)
        start = time.perf_counter()
        array[3] = new
        return 0, time.perf_counter() - start

    return turn


def _replace(hook: Hook, queues: frozenset[int], pair: list[Program]) -> Turn:
    programs = itertools.cycle(pair)

    def turn() -> Parts:
        new = next(programs)
        start = time.perf_counter()
        change = prepare_replace(hook.place, new, queues=queues)
        prepared = time.perf_counter()
        change.apply().close()
        return prepared - start, time.perf_counter() - prepared

    return turn


@contextlib.contextmanager
def filled_hook(size: int) -> Iterator[Hook]:
    """Yield the hook of a veth with so many RX queues, each with a program of its own."""
    root = Path(BPFFS, f"bench-{size}-queues")
    with contextlib.ExitStack() as resources:
        netns = resources.enter_context(namespace())
        root.mkdir(0o700)
        resources.callback(root.rmdir)
        resources.callback(_remove, root / "xdpkit")
        hook = Hook(make_veth(netns, queues=size).name, netns=netns, pin_root=str(root))
        hook.add(program()).close()
        resources.callback(hook.clear)
        for queue in range(size):
            hook.queues[queue].add(program()).close()
        yield hook


def _remove(folder: Path) -> None:
    if folder.exists():
        folder.rmdir()


if __name__ == "__main__":
    main()
