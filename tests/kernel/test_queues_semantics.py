# SPDX-License-Identifier: Apache-2.0
"""Which program serves which RX queue: what was asked for, what packets meet, what status tells.

The first test goes through all sequences of up to four operations, and the model that predicts
their outcome is in this file: :func:`predicted` and :func:`serving`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.attaching import attach_by_netlink, foreign_link
from tests.kernel.attaching import program as corpus_program
from tests.kernel.compiled import assembled
from tests.kernel.killing import wait_until
from tests.kernel.multiqueue import (
    Line,
    Witnesses,
    has_root,
    line_into,
    on,
    scopes,
    served_by,
    set_channels,
    unserved,
    unserved_map,
)
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from tests.kernel.test_hook_binding import load_for
from xdpkit import Hook
from xdpkit.errors import HookBusy, RequirementUnmet, UsageError, XdpkitError
from xdpkit.hook import Mode, Via, clean
from xdpkit.isa import asm
from xdpkit.isa.opcodes import AluOp, Register
from xdpkit.kernel import Map, Program
from xdpkit.uapi.bpf import MapType, ProgFlags, PseudoSrc, XdpAction

QUEUES = range(4)

mostly_by_link = pytest.mark.parametrize(
    "via",
    [Via.LINK, pytest.param(Via.NETLINK, marks=pytest.mark.soak)],
    ids=lambda via: via.value,
)
ways = pytest.mark.parametrize("via", list(Via), ids=lambda via: via.value)

# What is said where there is no program to replace or to delete.
MISSING = "nothing is attached|no programs? of (its|their) own|has none"

Scope = int | None
State = Mapping[Scope, int]


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done to the program of an RX queue; of None: to the global one."""

    verb: str
    scope: Scope

    def is_allowed(self, state: Mapping[Scope, object]) -> bool:
        """Whether the scope has a program to replace or to delete; or none, to add one."""
        return (self.scope in state) == (self.verb != "add")

    def __str__(self) -> str:
        return f"{self.verb} {'global' if self.scope is None else self.scope}"


OPERATIONS = [
    Operation(verb, scope) for scope in (None, 0, 1) for verb in ("add", "replace", "delete")
]


def predicted(state: State, operation: Operation, new: int) -> State:
    """Return the programs by scope after an operation that was allowed."""
    others = {scope: program for scope, program in state.items() if scope != operation.scope}
    return others if operation.verb == "delete" else {**others, operation.scope: new}


def serving(state: State, queue: int) -> int | None:
    """Return the program that serves a queue: its own, else the global one, else none."""
    return state.get(queue, state.get(None))


def allowed_sequences(
    length: int, occupied: frozenset[Scope] = frozenset()
) -> Iterator[tuple[Operation, ...]]:
    """Return the sequences of operations of which each is allowed where it is."""
    if not length:
        yield ()
        return
    state = dict.fromkeys(occupied, 0)
    for operation in OPERATIONS:
        if operation.is_allowed(state):
            after = frozenset(predicted(state, operation, 0))
            for rest in allowed_sequences(length - 1, after):
                yield (operation, *rest)


def without_the_refused(sequence: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Return those operations of a sequence that are allowed, where they are."""
    state: State = {}
    allowed = []
    for operation in sequence:
        if operation.is_allowed(state):
            state = predicted(state, operation, 0)
            allowed.append(operation)
    return tuple(allowed)


class Stage:
    """A hook on a multi-queue veth, what is asked of it, and what packets find there."""

    def __init__(
        self,
        veth: Veth,
        pin_root: str,
        line: Line,
        witnesses: Witnesses,
        *,
        via: Via | None = None,
    ) -> None:
        self.veth = veth
        self.hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
        self.line = line
        self.witnesses = witnesses
        self._pin_root = pin_root
        self._via = via

    def program(self, name: str = "witness", flags: ProgFlags = ProgFlags(0)) -> Program:
        return self.witnesses.program(name, flags=flags)

    def add(self, *queues: int, mode: Mode | None = None, via: Via | None = None) -> int:
        """Add a program for queues, without any: the global one; return its id."""
        new = self.program()
        scope = self.hook.queues[queues] if queues else self.hook
        scope.add(new, mode=mode, via=via).close()
        return new.id

    def make(self, operation: Operation, new: Program) -> None:
        scope = self.hook if operation.scope is None else self.hook.queues[operation.scope]
        if operation.verb == "add":
            scope.add(new, via=self._via).close()
        elif operation.verb == "replace":
            scope.replace(new).close()
        else:
            scope.delete()

    def assert_is(self, state: State, queues: Sequence[int] = QUEUES) -> None:
        """Look at what packets meet, and at what status tells of it."""
        assert scopes(self.hook) == state
        found = served_by(self.line, self.witnesses, queues)
        assert found == {queue: serving(state, queue) for queue in queues}

    def everything(self) -> tuple[object, ...]:
        """Return all that can be seen of the hook: for a comparison."""
        return self.hook.status(), self.pins()

    def pins(self) -> list[str]:
        return sorted(map(str, Path(self._pin_root, "xdpkit").rglob("*")))

    @contextlib.contextmanager
    def refusing(
        self, error: type[XdpkitError] | tuple[type[XdpkitError], ...], match: str
    ) -> Iterator[None]:
        """Expect the block to be refused, and the hook to be as before."""
        before = self.everything()
        with pytest.raises(error, match=match):
            yield
        assert self.everything() == before

    def assert_empty(self) -> None:
        assert on(self.hook) is None
        assert scopes(self.hook) == {}
        assert self.pins() == []


@pytest.fixture
def stage(veth: Veth, pin_root: str) -> Iterator[Stage]:
    with line_into(veth) as line, Witnesses() as witnesses:
        yield Stage(veth, pin_root, line, witnesses)


@pytest.fixture
def fresh(stage: Stage) -> Iterator[Stage]:
    """The same; nothing may be left at the end."""
    yield stage
    if on(stage.hook) is not None:
        stage.hook.clear()
    stage.assert_empty()


# The sequences.


def follow(stage: Stage, sequence: tuple[Operation, ...], seen: set[tuple[Operation, ...]]) -> None:
    """Make operations that are allowed; look, and try those that are not, where nobody was yet."""
    state: State = {}
    with Witnesses() as stage.witnesses:
        for made, operation in enumerate(sequence, 1):
            new = stage.program()
            stage.make(operation, new)
            state = predicted(state, operation, new.id)
            if sequence[:made] in seen:
                continue
            seen.add(sequence[:made])
            stage.assert_is(state)
            assert has_root(stage.hook) == any(scope is not None for scope in state)
            if made < 4:
                refuse_all_others(stage, state)
        if state:
            stage.hook.clear()
        stage.assert_empty()


def refuse_all_others(stage: Stage, state: State) -> None:
    before = stage.everything()
    new = stage.program("refused")
    for operation in OPERATIONS:
        if not operation.is_allowed(state):
            refuse(stage, operation, new, state)
            assert stage.everything() == before
    assert served_by(stage.line, stage.witnesses, QUEUES) == {
        queue: serving(state, queue) for queue in QUEUES
    }


def refuse(stage: Stage, operation: Operation, new: Program, state: State) -> None:
    with pytest.raises(XdpkitError) as caught:
        stage.make(operation, new)
    if operation.verb == "add":
        assert isinstance(caught.value, HookBusy)
        assert f"program {state[operation.scope]}" in str(caught.value)
    else:
        assert isinstance(caught.value, UsageError)
        assert re.search(MISSING, str(caught.value))


@pytest.mark.parametrize("longest", [3, pytest.param(4, marks=pytest.mark.soak)])
@mostly_by_link
def test_all_sequences_of_a_few_operations_do_what_the_model_says(
    veth: Veth, pin_root: str, via: Via, longest: int
) -> None:
    """All sequences over three scopes; of up to four operations, these are 7,380, in 231.

    An operation that is refused changes nothing: not a program, an id, a record, a pin or what a
    packet meets. That is tried for all of them after each shorter sequence of operations that are
    allowed. So any sequence does what remains of it without those that are refused; and all
    that can remain is followed here, with a look after each operation.
    """
    seen: set[tuple[Operation, ...]] = {()}
    with line_into(veth) as line, Witnesses() as witnesses:
        stage = Stage(veth, pin_root, line, witnesses, via=via)
        refuse_all_others(stage, {})
        for sequence in allowed_sequences(longest):
            follow(stage, sequence, seen)

    for length in range(1, longest + 1):
        for sequence in itertools.product(OPERATIONS, repeat=length):
            assert without_the_refused(sequence) in seen


@pytest.mark.soak
def test_all_sequences_of_four_operations_one_by_one(stage: Stage) -> None:
    """All 6,561, refused operations and all, with a look after each beginning that is new."""
    seen = set[tuple[Operation, ...]]()
    for sequence in itertools.product(OPERATIONS, repeat=4):
        state: State = {}
        with Witnesses() as stage.witnesses:
            for made, operation in enumerate(sequence, 1):
                new = stage.program()
                if operation.is_allowed(state):
                    stage.make(operation, new)
                    state = predicted(state, operation, new.id)
                else:
                    refuse(stage, operation, new, state)
                if sequence[:made] not in seen:
                    seen.add(sequence[:made])
                    stage.assert_is(state)
            if state:
                stage.hook.clear()


# Expected programs.


def test_the_program_of_a_queue_is_replaced_and_deleted_only_if_it_is_the_expected_one(
    fresh: Stage,
) -> None:
    hook = fresh.hook
    everywhere, first, second = fresh.add(), fresh.add(0), fresh.add(1)
    for wrong in (everywhere, second):
        with fresh.refusing(HookBusy, f"program {wrong} is expected"):
            hook.queues[0].replace(fresh.program(), expected=wrong)
        with fresh.refusing(HookBusy, f"program {wrong} is expected"):
            hook.queues[0].delete(expected=wrong)

    third = fresh.program()
    hook.queues[0].replace(third, expected=first).close()
    fresh.assert_is({None: everywhere, 0: third.id, 1: second})
    with fresh.refusing(HookBusy, f"program {first} is expected"):
        hook.queues[0].delete(expected=first)
    hook.queues[0].delete(expected=third.id)
    fresh.assert_is({None: everywhere, 1: second})


def test_the_global_program_beside_others_is_replaced_and_deleted_only_if_it_is_the_expected_one(
    fresh: Stage,
) -> None:
    hook = fresh.hook
    everywhere, first = fresh.add(), fresh.add(0)
    with fresh.refusing(HookBusy, f"program {first} is expected"):
        hook.replace(fresh.program(), expected=first)
    with fresh.refusing(HookBusy, f"program {first} is expected"):
        hook.delete(expected=first)

    second = fresh.program()
    hook.replace(second, expected=everywhere).close()
    fresh.assert_is({None: second.id, 0: first})
    hook.delete(expected=second.id)
    fresh.assert_is({0: first})


def test_of_several_queues_each_has_to_have_the_expected_program(fresh: Stage) -> None:
    hook = fresh.hook
    both, other = fresh.add(0, 1), fresh.add(2)
    with fresh.refusing(HookBusy, f"program {both} is expected"):
        hook.queues[0:3].replace(fresh.program(), expected=both)
    with fresh.refusing(HookBusy, f"program {both} is expected"):
        hook.queues[1, 2].delete(expected=both)

    new = fresh.program()
    hook.queues[0, 1].replace(new, expected=both).close()
    fresh.assert_is({0: new.id, 1: new.id, 2: other})
    hook.queues["0-1"].delete(expected=new.id)
    fresh.assert_is({2: other})


def test_the_root_itself_is_nobodys_expected_program(fresh: Stage) -> None:
    fresh.add()
    fresh.add(0)
    root = on(fresh.hook)
    assert root is not None
    for scope in (fresh.hook, fresh.hook.queues[0]):
        with fresh.refusing(HookBusy, f"program {root.program.id} is expected"):
            scope.replace(fresh.program(), expected=root.program.id)


# Several queues.


@pytest.mark.parametrize(
    ("named", "queues"),
    [
        (3, {3}),
        (slice(0, 3), {0, 1, 2}),
        (slice(1, None), {1, 2, 3}),
        ((0, 3), {0, 3}),
        ("0-1,3", {0, 1, 3}),
        (slice(None), {0, 1, 2, 3}),
    ],
    ids=["number", "slice", "open slice", "numbers", "text", "all"],
)
def test_queues_are_named_in_several_ways(fresh: Stage, named: Any, queues: set[int]) -> None:
    new = fresh.program()
    fresh.hook.queues[named].add(new).close()
    fresh.assert_is(dict.fromkeys(queues, new.id))
    replaced = fresh.program()
    fresh.hook.queues[named].replace(replaced).close()
    fresh.assert_is(dict.fromkeys(queues, replaced.id))
    fresh.hook.queues[named].delete()
    fresh.assert_empty()


@pytest.mark.parametrize("named", [4, 1000, -1, "", "x", "3-1", (), slice(2, 2), 1.5, (0, 4)])
def test_queues_that_there_are_not_are_refused(fresh: Stage, named: Any) -> None:
    fresh.add()
    with fresh.refusing(UsageError, "queue"):
        fresh.hook.queues[named].add(fresh.program()).close()


def test_of_several_queues_all_are_free_or_none_gets_the_program(fresh: Stage) -> None:
    everywhere, first = fresh.add(), fresh.add(1)
    with fresh.refusing(HookBusy, f"program {first}"):
        fresh.hook.queues[0:3].add(fresh.program())
    fresh.assert_is({None: everywhere, 1: first})


def test_of_several_queues_all_have_a_program_or_none_is_changed(fresh: Stage) -> None:
    everywhere, first = fresh.add(), fresh.add(1)
    with fresh.refusing(UsageError, "queue 0 has no program of its own"):
        fresh.hook.queues[0:2].replace(fresh.program())
    with fresh.refusing(UsageError, "queue 0 has no program of its own"):
        fresh.hook.queues[0:2].delete()
    fresh.assert_is({None: everywhere, 1: first})


def test_programs_of_several_queues_are_replaced_and_deleted_in_part(fresh: Stage) -> None:
    hook = fresh.hook
    everywhere, first = fresh.add(), fresh.add(0, 1, 2)
    new = fresh.program()
    hook.queues[1].replace(new).close()
    fresh.assert_is({None: everywhere, 0: first, 1: new.id, 2: first})
    hook.queues[0, 1].delete()
    fresh.assert_is({None: everywhere, 2: first})
    last = fresh.program()
    hook.queues[0, 1, 3].add(last).close()
    fresh.assert_is({None: everywhere, 0: last.id, 1: last.id, 2: first, 3: last.id})


def test_a_program_can_serve_a_queue_and_all_others_as_well(fresh: Stage) -> None:
    hook = fresh.hook
    both = fresh.program()
    hook.add(both).close()
    hook.queues[0].add(both).close()
    hook.queues[2].add(both).close()
    fresh.assert_is({None: both.id, 0: both.id, 2: both.id})
    hook.queues[0].delete()
    fresh.assert_is({None: both.id, 2: both.id})
    hook.delete()
    fresh.assert_is({2: both.id})
    hook.queues[2].delete()
    fresh.assert_empty()


# Precedence, and who takes over.


def test_the_global_program_takes_over_from_one_that_leaves_and_leaves_the_others(
    fresh: Stage,
) -> None:
    hook = fresh.hook
    first, everywhere, last = fresh.add(0), fresh.add(), fresh.add(3)
    fresh.assert_is({0: first, None: everywhere, 3: last})
    hook.queues[0].delete()
    fresh.assert_is({None: everywhere, 3: last})
    hook.delete()
    fresh.assert_is({3: last})


def test_packets_without_a_program_pass_and_are_counted_by_queue(fresh: Stage) -> None:
    fresh.add(1)
    with unserved_map(fresh.hook) as counters:
        assert unserved(counters) == {}
        fresh.line.send(0, 5)
        fresh.line.send(1, 6)
        fresh.line.send(3, 7)
        served_by(fresh.line, fresh.witnesses, [1])
        assert unserved(counters) == {0: 5, 3: 7}

        fresh.add()
        served_by(fresh.line, fresh.witnesses, QUEUES)
        assert unserved(counters) == {0: 5, 3: 7}


# From one program to the root and back.


@ways
def test_the_first_queue_brings_the_root_and_the_last_one_takes_it_away(
    fresh: Stage, via: Via
) -> None:
    hook = fresh.hook
    everywhere = fresh.add(via=via)
    alone = on(hook)
    assert alone is not None
    assert (alone.program.id, alone.members) == (everywhere, ())

    first, second = fresh.add(0), fresh.add(1)
    root = on(hook)
    assert root is not None
    assert has_root(hook)
    assert (root.mode, root.via, root.link_id) == (alone.mode, alone.via, alone.link_id)
    members = {each.qid: each.program.id for each in root.members}
    assert members == {None: everywhere, 0: first, 1: second}

    hook.queues[0].delete()
    assert has_root(hook)
    hook.queues[1].delete()
    back = on(hook)
    assert back is not None
    assert (back.program.id, back.link_id) == (everywhere, alone.link_id)
    fresh.assert_is({None: everywhere})
    hook.delete()
    fresh.assert_empty()


@ways
def test_a_hook_held_by_either_is_changed_in_all_its_scopes(fresh: Stage, via: Via) -> None:
    hook = fresh.hook
    first = fresh.add(0, 1, via=via)
    found = on(hook)
    assert found is not None
    assert found.via is via
    everywhere, third = fresh.add(), fresh.add(3)
    fresh.assert_is({None: everywhere, 0: first, 1: first, 3: third})
    new, other = fresh.program(), fresh.program()
    hook.queues[0, 3].replace(new).close()
    hook.replace(other).close()
    fresh.assert_is({None: other.id, 0: new.id, 1: first, 3: new.id})
    hook.queues[0, 1].delete()
    hook.delete()
    fresh.assert_is({3: new.id})
    hook.queues[3].delete()
    fresh.assert_empty()


@ways
def test_the_root_stays_if_it_is_to_be_kept(fresh: Stage, via: Via) -> None:
    hook = fresh.hook
    everywhere, _ = fresh.add(via=via), fresh.add(0)
    root = on(hook)
    hook.queues[0].delete(keep_root=True)
    fresh.assert_is({None: everywhere})
    kept = on(hook)
    assert root is not None
    assert kept is not None
    assert kept.program.id == root.program.id

    new = fresh.program()
    hook.replace(new).close()
    assert has_root(hook)
    fresh.assert_is({None: new.id})
    second = fresh.add(2)
    fresh.assert_is({None: new.id, 2: second})
    hook.queues[2].delete()
    assert not has_root(hook)
    fresh.assert_is({None: new.id})


def test_a_root_that_was_kept_goes_with_the_global_program(fresh: Stage) -> None:
    fresh.add()
    fresh.add(0)
    fresh.hook.queues[0].delete(keep_root=True)
    fresh.hook.delete()
    fresh.assert_empty()


def test_a_root_that_is_kept_can_be_without_any_program(fresh: Stage) -> None:
    hook = fresh.hook
    fresh.add()
    fresh.add(0)
    hook.queues[0].delete(keep_root=True)
    hook.delete(keep_root=True)
    assert has_root(hook)
    fresh.assert_is({})
    first = fresh.add(0)
    fresh.assert_is({0: first})
    hook.queues[0].delete(keep_root=True)
    everywhere = fresh.add()
    fresh.assert_is({None: everywhere})
    hook.clear()
    fresh.assert_empty()


@ways
@pytest.mark.parametrize("members", [(None,), (0,), (0, 3), (None, 0, 3)])
def test_everything_is_deleted_at_once(
    fresh: Stage, via: Via, members: tuple[int | None, ...]
) -> None:
    for queue in members:
        fresh.add(*(() if queue is None else (queue,)), via=via)
    fresh.hook.clear()
    fresh.assert_empty()
    assert set(served_by(fresh.line, fresh.witnesses, QUEUES).values()) == {None}


def test_an_empty_hook_has_nothing_to_clear(fresh: Stage) -> None:
    with fresh.refusing(UsageError, "nothing is attached"):
        fresh.hook.clear()


def test_another_process_changes_what_this_one_began(fresh: Stage) -> None:
    everywhere, first = fresh.add(), fresh.add(0, 1)
    new = fresh.program()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            fresh.hook.queues[1].replace(new, expected=first).close()
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fresh.assert_is({None: everywhere, 0: first, 1: new.id})


def test_programs_stay_when_the_process_that_added_them_has_closed_them(fresh: Stage) -> None:
    spec = corpus_program()
    fresh.hook.add(spec).close()
    fresh.hook.queues[0, 2].add(spec).close()
    fresh.hook.queues[1].add(spec).close()
    found = scopes(fresh.hook)
    assert set(found) == {None, 0, 1, 2}
    assert found[0] == found[2]
    assert len(set(found.values())) == 3
    opened = fresh.hook.open()
    assert opened is not None
    opened.close()


def test_what_a_change_returned_changes_these_queues_only(fresh: Stage) -> None:
    hook = fresh.hook
    everywhere = fresh.add()
    first, second, third = fresh.program(), fresh.program(), fresh.program()
    with hook.queues[0, 1].add(first) as attached:
        assert attached.program.id == first.id
        with hook.queues[2].add(second), attached.replace(third) as replaced:
            fresh.assert_is({None: everywhere, 0: third.id, 1: third.id, 2: second.id})
            with fresh.refusing(HookBusy, f"program {first.id} is expected"):
                attached.replace(fresh.program())
            hook.queues[0].replace(fresh.program()).close()
            with fresh.refusing(HookBusy, f"program {third.id} is expected"):
                replaced.detach()
            hook.queues[0].delete()
            hook.queues[0].add(third).close()
            replaced.detach()
            replaced.detach()
            fresh.assert_is({None: everywhere, 2: second.id})


def test_what_is_for_a_block_only_does_not_go_beside_others(fresh: Stage) -> None:
    first = fresh.add(0)
    with fresh.refusing(HookBusy, "already has program"):
        fresh.hook.add(fresh.program(), pin=False)
    fresh.assert_is({0: first})


def test_an_interface_that_is_deleted_takes_its_programs_along(stage: Stage) -> None:
    stage.add()
    stage.add(0, 1)
    with rtnetlink(stage.veth.netns) as connection:
        connection.link("del", ifname=stage.veth.name)
    clean(pin_root=stage.hook.place.pin_root)
    assert stage.pins() == []


# Changes that wait to be confirmed.


@mostly_by_link
@pytest.mark.parametrize("is_confirmed", [True, False], ids=["confirmed", "undone"])
@pytest.mark.parametrize(
    ("before", "verb", "queues"),
    [
        ([()], "add", (0,)),
        ([(), (0,)], "add", (2, 3)),
        ([(0,)], "add", ()),
        ([(), (0,), (1,)], "replace", (0, 1)),
        ([(0, 1)], "replace", (0,)),
        ([(), (0,)], "replace", ()),
        ([(), (0, 1)], "delete", (0,)),
        ([(), (0, 1)], "delete", (0, 1)),
        ([(0,), (1,)], "delete", (0, 1)),
    ],
)
def test_a_change_of_queues_is_kept_or_undone_as_a_whole(
    fresh: Stage,
    before: list[tuple[int, ...]],
    verb: str,
    queues: tuple[int, ...],
    is_confirmed: bool,
    via: Via,
) -> None:
    hook = fresh.hook
    for each in before:
        fresh.add(*each, via=via)
    programs, root = scopes(hook), on(hook)
    state: State = programs
    new = fresh.program()
    for queue in queues or (None,):
        state = predicted(state, Operation(verb, queue), new.id)
    scope = hook.queues[queues] if queues else hook
    waiting = 600 if is_confirmed else 0.3
    if verb == "delete":
        scope.delete(revert_after=waiting)
    else:
        getattr(scope, verb)(new, revert_after=waiting).close()

    if is_confirmed:
        expected = {queue: serving(state, queue) for queue in QUEUES}
        assert served_by(fresh.line, fresh.witnesses, QUEUES) == expected
        hook.confirm()
        fresh.assert_is(state)
    else:
        wait_until(lambda: scopes(hook) == programs)
        fresh.assert_is(programs)
        back = on(hook)
        assert back is not None
        assert root is not None
        assert back.program.id == root.program.id


# Modes, places and other tools.


def test_generic_mode_has_queues_as_well(netns: str, pin_root: str) -> None:
    # The last queue is out of reach, so there is one more.
    veth = make_veth(netns, queues=5)
    with line_into(veth, generic=True) as line, Witnesses() as witnesses:
        stage = Stage(veth, pin_root, line, witnesses)
        first = stage.add(0, 2, mode=Mode.GENERIC)
        stage.assert_is({0: first, 2: first})
        everywhere = stage.add(mode=Mode.GENERIC)
        stage.assert_is({None: everywhere, 0: first, 2: first})
        found = on(stage.hook)
        assert found is not None
        assert found.mode is Mode.GENERIC
        with stage.refusing(UsageError, "are in generic mode"):
            stage.add(1, mode=Mode.NATIVE)
        stage.hook.queues[0].delete()
        stage.assert_is({None: everywhere, 2: first})
        stage.hook.queues[2].delete()
        stage.assert_is({None: everywhere})
        stage.hook.delete()
        stage.assert_empty()


def test_what_holds_a_hook_stays_the_same_for_all_its_queues(fresh: Stage) -> None:
    fresh.add(0, via=Via.NETLINK)
    with fresh.refusing(UsageError, "held by netlink"):
        fresh.add(1, via=Via.LINK)


@pytest.mark.parametrize("by_link", [True, False], ids=["link", "netlink"])
def test_a_program_of_another_tool_gets_no_company(fresh: Stage, by_link: bool) -> None:
    with foreign_link(fresh.veth) if by_link else contextlib.nullcontext():
        if not by_link:
            attach_by_netlink(fresh.veth)
        found = on(fresh.hook)
        assert found is not None
        before = found.program.id
        with pytest.raises(HookBusy, match=f"program {before} "):
            fresh.hook.queues[0].add(fresh.program())
        for change in ("replace", "delete"):
            arguments = (fresh.program(),) if change == "replace" else ()
            with pytest.raises((HookBusy, UsageError)):
                getattr(fresh.hook.queues[0], change)(*arguments)
        after = on(fresh.hook)
        assert after is not None
        assert after.program.id == before
        assert fresh.pins() == []
        if not by_link:
            fresh.hook.delete(expected=before)


def test_the_other_end_may_be_in_another_namespace(netns: str, pin_root: str) -> None:
    with namespace() as elsewhere:
        veth = make_veth(netns, elsewhere)
        with line_into(veth) as line, Witnesses() as witnesses:
            stage = Stage(veth, pin_root, line, witnesses)
            everywhere, first = stage.add(), stage.add(1)
            stage.assert_is({None: everywhere, 1: first})
            stage.hook.clear()
            stage.assert_empty()


# Programs that do not go together.


@pytest.mark.needs("xdp-frags")
@pytest.mark.parametrize("flags", [ProgFlags(0), ProgFlags.XDP_HAS_FRAGS], ids=["plain", "frags"])
def test_programs_with_and_without_support_for_fragments_do_not_go_together(
    fresh: Stage, flags: ProgFlags
) -> None:
    hook = fresh.hook
    other = ProgFlags.XDP_HAS_FRAGS ^ flags
    first, second = fresh.program(flags=flags), fresh.program(flags=flags)
    hook.add(first).close()
    with fresh.refusing(RequirementUnmet, "fragments"):
        hook.queues[0].add(fresh.program(flags=other))

    hook.queues[0].add(second).close()
    for change in (hook.queues[1].add, hook.queues[0].replace, hook.replace):
        with fresh.refusing(RequirementUnmet, "fragments"):
            change(fresh.program(flags=other))
    fresh.assert_is({None: first.id, 0: second.id})

    # The last one has nobody to agree with.
    hook.delete()
    third = fresh.program(flags=other)
    hook.queues[0].replace(third).close()
    fresh.assert_is({0: third.id})


def test_a_program_of_a_device_is_not_called_for_a_queue(fresh: Stage) -> None:
    fresh.add()
    with load_for(fresh.veth) as bound:
        with fresh.refusing(RequirementUnmet, "bound|device"):
            fresh.hook.queues[0].add(bound)
        fresh.add(0)
        for change in (fresh.hook.queues[1].add, fresh.hook.queues[0].replace, fresh.hook.replace):
            with fresh.refusing(RequirementUnmet, "bound|device"):
                change(bound)


def test_beside_a_program_of_a_device_no_queue_gets_one(fresh: Stage) -> None:
    with load_for(fresh.veth) as bound:
        fresh.hook.add(bound).close()
        with fresh.refusing(RequirementUnmet, "bound|device"):
            fresh.hook.queues[0].add(fresh.program())


_RUNS = struct.Struct("=QQ")


def calling_itself(array: Map, runs: Map) -> Program:
    """Load a program that tail-calls slot 0 of an array; it counts its runs, and its returns."""
    return assembled(
        asm.mov(Register.R6, Register.R1),
        asm.ld_map_value(Register.R7, runs.fileno(), 0),
        asm.load(Register.R2, Register.R7),
        asm.alu(AluOp.ADD, Register.R2, 1),
        asm.store(Register.R7, 0, Register.R2),
        asm.mov(Register.R1, Register.R6),
        asm.ld_imm64(Register.R2, array.fileno(), source=PseudoSrc.MAP_FD),
        asm.mov(Register.R3, 0),
        asm.call("tail_call"),
        asm.load(Register.R2, Register.R7, 8),
        asm.alu(AluOp.ADD, Register.R2, 1),
        asm.store(Register.R7, 8, Register.R2),
        asm.mov(Register.R0, XdpAction.DROP),
        asm.exit(),
        name="calls_itself",
    )


def test_the_root_takes_one_of_the_33_tail_calls(fresh: Stage) -> None:
    hook = fresh.hook
    with (
        Map.create(MapType.PROG_ARRAY, key_size=4, value_size=4, max_entries=1) as array,
        Map.create(MapType.ARRAY, key_size=4, value_size=_RUNS.size, max_entries=1) as counts,
        calling_itself(array, counts) as program,
    ):
        array[0] = program

        def runs_for_a_frame() -> int:
            runs, returns = _RUNS.unpack(counts[0])
            fresh.line.send(0)
            wait_until(lambda: _RUNS.unpack(counts[0])[1] == returns + 1)
            return int(_RUNS.unpack(counts[0])[0] - runs)

        hook.add(program).close()
        assert runs_for_a_frame() == 1 + 33
        fresh.add(1)
        # The queue's own slot is empty. On x86-64 that costs a tail call, too, before Linux 6.12
        # ("bpf, x64: Fix tailcall hierarchy").
        assert runs_for_a_frame() in (32, 33)
        hook.queues[0].add(program).close()
        assert runs_for_a_frame() == 33
        hook.delete()
        hook.queues[1].delete()
        assert runs_for_a_frame() == 33
        hook.queues[0].delete()
        del array[0]


# Many queues, and queues that come and go.


def test_no_more_than_1023_queues_can_have_programs_of_their_own(netns: str, pin_root: str) -> None:
    veth = make_veth(netns, queues=1100)
    with line_into(veth) as line, Witnesses(1100, room=8) as witnesses:
        stage = Stage(veth, pin_root, line, witnesses)
        some = (0, 500, 1022, 1023, 1099)
        last = stage.add(1022)
        stage.assert_is({1022: last}, some)
        for queues in ((1023,), (1022, 1099)):
            with stage.refusing(RequirementUnmet, f"queue {max(queues)} cannot have a program"):
                stage.add(*queues)
        with stage.refusing(UsageError, "no queue 1100"):
            stage.add(1100)
        with unserved_map(stage.hook) as counters:
            # Those beyond the last entry share it.
            assert unserved(counters) == {0: 2, 500: 2, 1022: 4}

        everywhere, others = stage.add(), stage.add(*range(1022))
        stage.assert_is({None: everywhere, **dict.fromkeys(range(1022), others), 1022: last}, some)
        stage.hook.queues[0:1023].delete()
        stage.assert_is({None: everywhere}, some)
        stage.hook.delete()
        stage.assert_empty()


def test_programs_of_queues_that_are_not_used_any_more_are_told_of(fresh: Stage) -> None:
    veth, hook = fresh.veth, fresh.hook
    everywhere, first, second, third = fresh.add(), fresh.add(0), fresh.add(2), fresh.add(3)
    assert {each.note for each in hook.status().programs} == {None}

    # The driver wants as many RX queues as the other end sends by.
    set_channels(veth.peer, veth.peer_netns, rx=4, tx=2)
    set_channels(veth.name, veth.netns, rx=2, tx=4)
    notes = {each.qid: each.note for each in hook.status().programs}
    assert (notes.pop(None), notes.pop(0)) == (None, None)
    assert notes == {
        queue: f"witness: queue {queue} of {veth.name} is not in use now (ethtool -L)"
        for queue in (2, 3)
    }
    fresh.assert_is({None: everywhere, 0: first, 2: second, 3: third}, range(2))

    # A program can wait for its queue, and go without it.
    hook.queues[2].delete()
    new = fresh.program()
    hook.queues[3].replace(new).close()
    fourth = fresh.add(1)
    fresh.assert_is({None: everywhere, 0: first, 1: fourth, 3: new.id}, range(2))

    set_channels(veth.name, veth.netns, rx=4, tx=4)
    set_channels(veth.peer, veth.peer_netns, rx=4, tx=4)
    assert {each.note for each in hook.status().programs} == {None}
    fresh.assert_is({None: everywhere, 0: first, 1: fourth, 3: new.id})


def test_one_queue_is_enough(netns: str, pin_root: str) -> None:
    veth = make_veth(netns, queues=1)
    with line_into(veth) as line, Witnesses(1) as witnesses:
        stage = Stage(veth, pin_root, line, witnesses)
        first = stage.add(0)
        stage.assert_is({0: first}, range(1))
        with stage.refusing(UsageError, "no queue 1"):
            stage.add(1)
        everywhere = stage.add()
        stage.assert_is({0: first, None: everywhere}, range(1))
        stage.hook.queues[0].delete()
        stage.assert_is({None: everywhere}, range(1))
        stage.hook.delete()
        stage.assert_empty()
