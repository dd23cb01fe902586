# SPDX-License-Identifier: Apache-2.0
"""Analysing a program together with those that its tail calls reach."""

from __future__ import annotations

from collections.abc import Iterator

from xdpkit.analysis.calls import Leaf
from xdpkit.analysis.cfg import Graph
from xdpkit.analysis.explore import Explorer
from xdpkit.analysis.report import Analysis, Reporter
from xdpkit.analysis.subject import Subject
from xdpkit.analysis.usage import Recorder
from xdpkit.analysis.values import Cause, CauseKind, join, unknown

_MAX_ROUNDS = 8


def analyse(subject: Subject) -> Analysis:
    """Return what a program can return, and what it uses.

    Sound for programs that the verifier accepts: what can happen is in the result. Where a program
    is too complex to be followed, or has an instruction that is not known, anything can.

    Raises:
        ObjectFormatError: a jump or call leads out of the program or into the middle of an
            instruction, control runs off its end, or there are no instructions.
    """
    return _Solver(subject).solve()


class _Solver:
    """A program and those in its arrays, whose results depend on each other."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        # Callees before callers, so that most is known the first time round.
        self._members = list(_members(subject))
        self._graphs = {id(member): _graph(member) for member in self._members}
        self._leaves: dict[int, Leaf] = {}

    def solve(self) -> Analysis:
        """Follow all until nothing new is learnt, and report on the first."""
        recorder = Recorder()
        changed, rounds = True, 0
        while changed:
            changed = False
            rounds += 1
            for member in self._members:
                recorder = self._follow(member)
                changed |= self._update(member, recorder, give_up=rounds > _MAX_ROUNDS)
        return Reporter(self._subject, self._graphs[id(self._subject)], recorder).report()

    def _follow(self, member: Subject) -> Recorder:
        return Explorer(member, self._graphs[id(member)], self._leaf).explore()

    def _leaf(self, program: Subject | Analysis) -> Leaf:
        if isinstance(program, Analysis):
            return Leaf(program.returned, bool(program.throws))
        return self._leaves.get(id(program), Leaf(None, False))

    def _update(self, member: Subject, recorder: Recorder, *, give_up: bool) -> bool:
        """Take down what a member returns; return whether that can change another's result."""
        if len(self._members) == 1 and not recorder.tail_calls:
            return False
        known = self._leaf(member)
        returned, throws = recorder.returned, known.throws or bool(recorder.throws)
        if returned is not None and known.returned is not None:
            returned = join(known.returned, returned)
        if returned is not None and returned != known.returned and give_up:
            returned = unknown(64, Cause(CauseKind.TOO_COMPLEX, "", 0))
        leaf = Leaf(returned, throws)
        self._leaves[id(member)] = leaf
        return leaf != known


def _graph(subject: Subject) -> Graph:
    entries = {function.slot for function in subject.functions}
    if subject.exception_callback is not None:
        entries.add(subject.exception_callback)
    return Graph(subject.instructions, entries, subject.references)


def _members(subject: Subject) -> Iterator[Subject]:
    """Yield a program and those in its arrays, and theirs; callees first."""
    seen = {id(subject)}
    path = [(subject, _callees(subject))]
    while path:
        member, callees = path[-1]
        callee = next((callee for callee in callees if id(callee) not in seen), None)
        if callee is None:
            yield member
            path.pop()
        else:
            seen.add(id(callee))
            path.append((callee, _callees(callee)))


def _callees(subject: Subject) -> Iterator[Subject]:
    for known in subject.maps.values():
        for program in (known.programs or {}).values():
            if isinstance(program, Subject):
                yield program
