# SPDX-License-Identifier: Apache-2.0
"""Programs of RX queues change while frames arrive: none is lost, none is seen by two or by none.

Frames come in two ways: live ones, as fast as the kernel makes them, into the queue of each CPU;
and a socket's, into all queues in turn. Each program drops what it sees and counts it by queue, and
the root counts what it has no program for. All that together is what was sent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.kernel.killing import wait_until
from tests.kernel.multiqueue import (
    Witnesses,
    has_root,
    line_into,
    scopes,
    streaming,
    unserved,
    unserved_map,
)
from tests.kernel.net import Veth, make_veth
from tests.kernel.test_hook_under_load import frames_into, not_taken
from xdpkit import Hook
from xdpkit.errors import HookBusy, UsageError
from xdpkit.hook import Via
from xdpkit.kernel import Map, Program

pytestmark = pytest.mark.needs("live-frames", "bpf-link-xdp")

counts = pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.soak)])


@dataclass(frozen=True, slots=True)
class Traffic:
    """Frames on their way to a hook.

    Attributes:
        go_on: waits until each queue has been sent some that were not yet on their way.
        sent: returns how many have reached the hook or will; for when they have stopped.
    """

    go_on: Callable[[], None]
    sent: Callable[[], int]


@contextlib.contextmanager
def live_frames(veth: Veth, queues: int) -> Iterator[Traffic]:
    """Send live frames from one CPU for each queue, all at once."""
    cpus = os.sched_getaffinity(0)
    with contextlib.ExitStack() as flowing:
        flows = []
        # veth_select_rxq() in drivers/net/veth.c.
        for cpu in {cpu % queues: cpu for cpu in cpus}.values():
            # A thread begins on the CPUs that the one has which starts it.
            os.sched_setaffinity(0, {cpu})
            try:
                flows.append(flowing.enter_context(frames_into(veth, 50)))
            finally:
                os.sched_setaffinity(0, cpus)

        def go_on() -> None:
            for flow in flows:
                flow.go_on()

        yield Traffic(go_on, lambda: sum(flow.sent for flow in flows) - not_taken(veth))


@contextlib.contextmanager
def frames_of_a_socket(veth: Veth, queues: int) -> Iterator[Traffic]:
    """Send frames into each queue in turn."""
    with line_into(veth) as line, streaming(line, range(queues)) as stream:
        yield Traffic(stream.go_on, lambda: line.sent - line.not_taken())


# As many queues as they reach.
traffics = pytest.mark.parametrize(
    ("traffic", "queues"),
    [
        pytest.param(live_frames, 2, id="live"),
        pytest.param(frames_of_a_socket, 4, id="socket"),
    ],
)
ways_and_traffics = pytest.mark.parametrize(
    ("via", "traffic", "queues"),
    [
        pytest.param(Via.LINK, live_frames, 2, id="link-live"),
        pytest.param(Via.NETLINK, frames_of_a_socket, 4, id="netlink-socket"),
        pytest.param(Via.LINK, frames_of_a_socket, 4, id="link-socket", marks=pytest.mark.soak),
        pytest.param(Via.NETLINK, live_frames, 2, id="netlink-live", marks=pytest.mark.soak),
    ],
)


@dataclass
class Stage:
    """A hook with programs that count, and what the roots count that were there.

    Attributes:
        owned: queues that have a program of their own all the time.
        may_pass: whether there are queues without a program now and then.
        meant_for: the queues whose frames each program may see, by its id.
        counters: the maps of all roots, by id.
    """

    hook: Hook
    via: Via
    queues: int
    witnesses: Witnesses
    owned: frozenset[int] = frozenset()
    may_pass: bool = False
    meant_for: dict[int, set[int]] = field(default_factory=dict)
    counters: dict[int, Map] = field(default_factory=dict)

    def add(self, *queues: int) -> None:
        """Add a program for queues; without any, the global one."""
        new = self._program(queues)
        if queues:
            self.hook.queues[queues].add(new, via=self.via).close()
        else:
            self.hook.add(new, via=self.via).close()
        self._look()

    def replace(self, *queues: int, revert_after: float | None = None) -> None:
        new = self._program(queues)
        scope = self.hook.queues[queues] if queues else self.hook
        scope.replace(new, revert_after=revert_after).close()
        self._look()

    def delete(self, *queues: int, keep_root: bool = False) -> None:
        scope = self.hook.queues[queues] if queues else self.hook
        scope.delete(keep_root=keep_root)
        self._look()

    def _program(self, queues: tuple[int, ...]) -> Program:
        new = self.witnesses.program()
        self.meant_for[new.id] = set(queues) or {*range(self.queues)} - self.owned
        return new

    def _look(self) -> None:
        """Keep the counters of the root that is there: they may go with it."""
        if not has_root(self.hook):
            return
        found = unserved_map(self.hook)
        if self.counters.setdefault(found.id, found) is not found:
            found.close()

    def unserved(self) -> int:
        return sum(sum(unserved(each).values()) for each in self.counters.values())

    def counted(self) -> int:
        """Return how many frames are accounted for."""
        return self.witnesses.seen().total() + self.unserved()

    def assert_all_were_counted(self, sent: int) -> None:
        # The last ones may still wait in the queues.
        wait_until(
            lambda: self.counted() >= sent,
            lambda: f"of {sent} frames {self.counted()} were seen",
        )
        assert self.counted() == sent
        assert self.may_pass or not self.unserved()
        for (program, queue), frames in self.witnesses.seen().items():
            assert not frames or queue in self.meant_for[program]


@pytest.fixture
def stage(netns: str, pin_root: str, via: Via, queues: int) -> Iterator[tuple[Veth, Stage]]:
    veth = make_veth(netns, queues=queues)
    hook = Hook(veth.name, netns=netns, pin_root=pin_root)
    with Witnesses(queues, room=512) as witnesses:
        stage = Stage(hook, via, queues, witnesses)
        yield veth, stage
        hook.clear()
        for counters in stage.counters.values():
            counters.close()


# What is changed: each makes the hook ready, and then a change each time that it is asked.


def the_root_comes_and_goes(stage: Stage) -> Iterator[None]:
    stage.add()
    while True:
        yield
        stage.add(0)
        yield
        stage.delete(0)


def the_root_comes_and_goes_with_several_queues(stage: Stage) -> Iterator[None]:
    stage.add()
    while True:
        yield
        stage.add(0, 1)
        yield
        stage.delete(0, 1)


def the_root_comes_and_stays(stage: Stage) -> Iterator[None]:
    stage.add()
    while True:
        yield
        stage.add(1)
        yield
        stage.delete(1, keep_root=True)


def one_program_is_replaced(stage: Stage) -> Iterator[None]:
    stage.owned = frozenset({0})
    stage.add()
    stage.add(0)
    while True:
        yield
        stage.replace(0)
        yield
        stage.replace()


def several_programs_are_replaced_at_once(stage: Stage) -> Iterator[None]:
    stage.owned = frozenset({0, 1})
    stage.add()
    stage.add(0)
    stage.add(1)
    while True:
        yield
        stage.replace(0, 1)


def a_queue_gets_a_program_and_loses_it(stage: Stage) -> Iterator[None]:
    stage.owned = frozenset({0})
    stage.add()
    stage.add(0)
    while True:
        yield
        stage.add(1)
        yield
        stage.delete(1)


def the_global_program_comes_and_goes(stage: Stage) -> Iterator[None]:
    stage.owned, stage.may_pass = frozenset({1}), True
    stage.add(1)
    while True:
        yield
        stage.add()
        yield
        stage.delete()


def the_last_queue_leaves_without_a_global_program(stage: Stage) -> Iterator[None]:
    stage.may_pass = True
    stage.add(0)
    while True:
        yield
        stage.delete(0, keep_root=True)
        yield
        stage.add(0)


def a_replacement_is_confirmed(stage: Stage) -> Iterator[None]:
    stage.owned = frozenset({0})
    stage.add()
    stage.add(0)
    while True:
        yield
        stage.replace(0, revert_after=600)
        yield
        stage.hook.confirm()


SCENARIOS = [
    the_root_comes_and_goes,
    the_root_comes_and_goes_with_several_queues,
    the_root_comes_and_stays,
    one_program_is_replaced,
    several_programs_are_replaced_at_once,
    a_queue_gets_a_program_and_loses_it,
    the_global_program_comes_and_goes,
    the_last_queue_leaves_without_a_global_program,
    a_replacement_is_confirmed,
]


@counts
@ways_and_traffics
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_each_frame_is_seen_once_while(
    stage: tuple[Veth, Stage],
    scenario: Callable[[Stage], Iterator[None]],
    traffic: Callable[[Veth, int], contextlib.AbstractContextManager[Traffic]],
    count: int,
) -> None:
    veth, on_it = stage
    changes = scenario(on_it)
    next(changes)
    with traffic(veth, on_it.queues) as flowing:
        for _ in range(count):
            flowing.go_on()
            next(changes)
        flowing.go_on()
    on_it.assert_all_were_counted(flowing.sent())


@traffics
@pytest.mark.parametrize("via", [Via.LINK], ids=["link"])
def test_a_change_that_is_undone_in_time_is_seen_as_two(
    stage: tuple[Veth, Stage],
    traffic: Callable[[Veth, int], contextlib.AbstractContextManager[Traffic]],
) -> None:
    veth, on_it = stage
    on_it.owned = frozenset({0, 1})
    on_it.add()
    on_it.add(0, 1)
    before = scopes(on_it.hook)
    with traffic(veth, on_it.queues) as flowing:
        flowing.go_on()
        on_it.replace(0, 1, revert_after=0.1)
        wait_until(lambda: scopes(on_it.hook) == before)
        flowing.go_on()
    on_it.assert_all_were_counted(flowing.sent())


@traffics
@pytest.mark.parametrize("via", [Via.LINK], ids=["link"])
def test_a_refusal_is_not_noticed_by_any_frame(
    stage: tuple[Veth, Stage],
    traffic: Callable[[Veth, int], contextlib.AbstractContextManager[Traffic]],
) -> None:
    veth, on_it = stage
    on_it.owned = frozenset({0})
    on_it.add()
    on_it.add(0)
    before = scopes(on_it.hook)
    with traffic(veth, on_it.queues) as flowing:
        for _ in range(3):
            flowing.go_on()
            with pytest.raises(HookBusy):
                on_it.add(0, 1)
            with pytest.raises(UsageError):
                on_it.replace(0, 1)
            with pytest.raises(UsageError):
                on_it.delete(0, 1)
        flowing.go_on()
    assert scopes(on_it.hook) == before
    on_it.assert_all_were_counted(flowing.sent())
    saw = {program for (program, _), frames in on_it.witnesses.seen().items() if frames}
    assert saw <= {*before.values()}
