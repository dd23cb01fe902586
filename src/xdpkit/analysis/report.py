# SPDX-License-Identifier: Apache-2.0
"""What an analysis gives: actions, and everything that a program uses, each with its origins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from xdpkit.analysis.cfg import Graph
from xdpkit.analysis.machine import XDP_MD_FIELDS
from xdpkit.analysis.subject import Subject
from xdpkit.analysis.usage import Area, AreaAccess, Place, Recorder
from xdpkit.analysis.values import Cause, Scalar
from xdpkit.isa import Kind
from xdpkit.isa.opcodes import Class, JmpOp
from xdpkit.uapi.bpf import MapType, ProgType, XdpAction
from xdpkit.uapi.helpers import HELPERS

_FRAGMENT_HELPERS = ("xdp_get_buff_len", "xdp_load_bytes", "xdp_store_bytes")
LOOPING_HELPERS = frozenset(
    HELPERS.index(name) for name in ("loop", "for_each_map_elem", "user_ringbuf_drain")
)
_CELL = 8  # bytes that the stack is used in
_FRAME_UNIT = 16  # bytes that the verifier rounds a frame up to, for a JIT
_Key = TypeVar("_Key", int, str)
_MAY_GOTO = Class.JMP | JmpOp.JCOND


@dataclass(frozen=True, slots=True)
class Origin:
    """An instruction that something comes from.

    Attributes:
        slot: its place in the linked program.
        function: the function that it is in.
        line: source line as "file.c:12", None if not known.
    """

    slot: int
    function: str
    line: str | None

    def __str__(self) -> str:
        return self.line or f"{self.function}+{self.slot}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reason why a program may return anything."""

    cause: Cause
    origin: Origin

    def __str__(self) -> str:
        return f"{self.cause} ({self.origin})"


@dataclass(frozen=True, slots=True)
class Actions:
    """What the main function can return: the lower 32 bits of r0, unsigned.

    Attributes:
        origins: where each value that is known comes from. A value that is handed through a
            subprogram has the origin of the first call that was followed.
        unknown: why there may be any other value too; empty: there is no other.
    """

    origins: Mapping[int, tuple[Origin, ...]]
    unknown: tuple[Unknown, ...] = ()

    @property
    def values(self) -> frozenset[int]:
        """The values that are known to be possible."""
        return frozenset(self.origins)

    @property
    def any(self) -> bool:
        """Whether any value is possible."""
        return bool(self.unknown)

    @property
    def invalid(self) -> Mapping[int, tuple[Origin, ...]]:
        """The values that are known to be possible and are no action."""
        return {value: at for value, at in self.origins.items() if value > max(XdpAction)}

    def __contains__(self, value: object) -> bool:
        return self.any or value in self.origins

    def __str__(self) -> str:
        names = [
            XdpAction(value).name if value in set(XdpAction) else str(value)
            for value in sorted(self.origins)
        ]
        return " ".join([*names, "any"] if self.any else names)


@dataclass(frozen=True, slots=True)
class ContextAccess:
    """A field of the context that is read or written.

    Attributes:
        offset: bytes into it, -1 if not known. size: bytes.
        name: of the field of ``struct xdp_md``, None if there is none.
        is_write: whether it is written.
        origins: where.
    """

    offset: int
    size: int
    name: str | None
    is_write: bool
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Calls of ``bpf_xdp_adjust_head``, ``_meta`` or ``_tail``.

    Attributes:
        place: which end. grows, shrinks: what it may do to the packet, or to the metadata.
        origins: where.
    """

    place: Place
    grows: bool
    shrinks: bool
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Redirect:
    """A call of a redirect helper.

    Attributes:
        maps: the maps that say where to; None: ``bpf_redirect()`` to an interface index; empty:
            not known which.
        targets: the interface indices or keys; None: not known.
        flags: the flags; None: not known.
        origin: where.
    """

    maps: tuple[str, ...] | None
    targets: frozenset[int] | None
    flags: frozenset[int] | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class TailCall:
    """A tail call.

    Attributes:
        arrays: the program arrays; empty: not known which.
        indices: the slots of them; None: not known.
        functions: where it is called from.
        in_subprogram: whether it may be called from a function other than the main one.
        origin: where.
    """

    arrays: tuple[str, ...]
    indices: frozenset[int] | None
    functions: tuple[str, ...]
    in_subprogram: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Throw:
    """A call of ``bpf_throw()``; values are the lower 32 bits thrown, None: not known."""

    values: frozenset[int] | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class FunctionUse:
    """A function that can be reached.

    Attributes:
        name: its name. slot: where it begins.
        arguments: how many registers its arguments are in: up to the last that it reads.
        stack: bytes of stack that it uses itself, without what the verifier adds to the frame of
            a function that calls ``bpf_loop`` (24) or has a ``may_goto`` (16).
        replaceable: whether a program of type EXT (freplace) can take its place.
        is_callback: whether its address is taken.
        calls: the functions that it calls, or has called back.
    """

    name: str
    slot: int
    arguments: int
    stack: int
    replaceable: bool
    is_callback: bool
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """The deepest chain of calls.

    Attributes:
        depth: bytes, each frame rounded up to a multiple of 16 as the verifier does for a JIT.
        chain: the functions, main first.
    """

    depth: int
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loops:
    """Where a program can go round; how often is not known.

    Attributes:
        back_edges: jumps back.
        may_goto: jumps that the kernel takes when a loop has run too long.
        calls: helpers and kernel functions that loop: ``bpf_loop``, ``bpf_for_each_map_elem``,
            ``bpf_user_ringbuf_drain``, ``bpf_iter_*_next``.
    """

    back_edges: tuple[Origin, ...]
    may_goto: tuple[Origin, ...]
    calls: tuple[Origin, ...]

    def __bool__(self) -> bool:
        return bool(self.back_edges or self.may_goto or self.calls)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found out about a program.

    Everything is about instructions that can be reached, as far as is known: a use that is listed
    may not happen, one that is not listed does not happen.

    Attributes:
        name: of the program.
        actions: what it can return, what its tail calls reach included.
        packet_reads, packet_writes: direct accesses, and helpers that do so.
        metadata_reads, metadata_writes: the same of the area in front of the packet.
        adjustments: calls that move the packet's ends.
        fragment_helpers: calls that handle packets in several pieces.
        redirects: redirects.
        helpers: by number. kfuncs: by name. symbols: kernel variables, by name.
        maps: by name. map_types: by type, of the maps whose type is known.
        context: fields of the context.
        ambiguous: slots of accesses to the context that may be to something else, too.
        generalised: where functions begin that are called in more ways than are followed apart.
        addresses: places in the context, in bytes, whose address others than the program's static
            functions get: helpers, kernel functions, global functions, memory beside the stack.
        loops: loops.
        functions: the functions that can be reached, by slot. stack: the deepest chain of calls.
        tail_calls: tail calls. throws: calls of ``bpf_throw()``.
        callbacks: by name of the function, where it is handed over.
        reachable: slots of the instructions that can be reached.
        returned: all 64 bits of what the main function returns; None: it does not return.
        notes: what limits this analysis, in sentences.
    """

    name: str
    actions: Actions
    packet_reads: tuple[Origin, ...]
    packet_writes: tuple[Origin, ...]
    metadata_reads: tuple[Origin, ...]
    metadata_writes: tuple[Origin, ...]
    adjustments: tuple[Adjustment, ...]
    fragment_helpers: tuple[Origin, ...]
    redirects: tuple[Redirect, ...]
    helpers: Mapping[int, tuple[Origin, ...]]
    kfuncs: Mapping[str, tuple[Origin, ...]]
    symbols: Mapping[str, tuple[Origin, ...]]
    maps: Mapping[str, tuple[Origin, ...]]
    map_types: Mapping[MapType | int, tuple[Origin, ...]]
    context: tuple[ContextAccess, ...]
    loops: Loops
    functions: tuple[FunctionUse, ...]
    stack: Stack
    tail_calls: tuple[TailCall, ...]
    throws: tuple[Throw, ...]
    callbacks: Mapping[str, tuple[Origin, ...]]
    ambiguous: frozenset[int] = field(repr=False)
    generalised: frozenset[int] = field(repr=False)
    addresses: Mapping[int, tuple[Origin, ...]]
    reachable: frozenset[int] = field(repr=False)
    returned: Scalar | None = field(repr=False)
    notes: tuple[str, ...] = ()


class Reporter:
    """Turns what was taken down into an :class:`Analysis`."""

    def __init__(self, subject: Subject, graph: Graph, recorder: Recorder) -> None:
        self._subject = subject
        self._graph = graph
        self._recorder = recorder
        self._owners = sorted(graph.entries)

    def report(self) -> Analysis:
        """Return the analysis."""
        recorder = self._recorder
        return Analysis(
            name=self._subject.name,
            actions=self._actions(),
            packet_reads=self._area(Area.PACKET, False, self._dynptr("dynptr_read")),
            packet_writes=self._area(Area.PACKET, True, self._dynptr("dynptr_write")),
            metadata_reads=self._area(Area.METADATA, False),
            metadata_writes=self._area(Area.METADATA, True),
            adjustments=tuple(self._adjustments()),
            fragment_helpers=self._origins(
                slot
                for name in _FRAGMENT_HELPERS
                for slot in recorder.helpers.get(HELPERS.index(name), ())
            ),
            redirects=tuple(self._redirects()),
            helpers=self._by_key(recorder.helpers),
            kfuncs=self._by_key(recorder.kfuncs),
            symbols=self._by_key(recorder.symbols),
            maps=self._by_key(recorder.maps),
            map_types=self._map_types(),
            context=tuple(self._context()),
            loops=self._loops(),
            functions=tuple(self._functions()),
            stack=self._stack(),
            tail_calls=tuple(self._tail_calls()),
            throws=tuple(
                Throw(_values(value), self._origin(slot))
                for slot, value in sorted(recorder.throws.items())
            ),
            callbacks={
                self._subject.function_name(entry): self._origins(slots)
                for entry, slots in sorted(recorder.callbacks.items())
            },
            ambiguous=frozenset().union(*recorder.fields.values()) & recorder.elsewhere,
            generalised=frozenset(recorder.generalised),
            addresses=self._by_key(recorder.addresses),
            reachable=frozenset(
                slot for start in recorder.blocks for slot in self._graph.blocks[start].slots
            ),
            returned=recorder.returned,
            notes=tuple(sorted(recorder.notes)),
        )

    def _origin(self, slot: int) -> Origin:
        function = self._owners[bisect_right(self._owners, slot) - 1]
        return Origin(slot, self._subject.function_name(function), self._subject.line_of(slot))

    def _origins(self, slots: Iterable[int]) -> tuple[Origin, ...]:
        return tuple(self._origin(slot) for slot in sorted(set(slots)))

    def _by_key(self, found: Mapping[_Key, Iterable[int]]) -> dict[_Key, tuple[Origin, ...]]:
        return {key: self._origins(found[key]) for key in sorted(found)}

    def _actions(self) -> Actions:
        recorder = self._recorder
        return Actions(
            self._by_key(recorder.actions),
            tuple(
                Unknown(cause, self._origin(cause.slot))
                for cause in sorted(recorder.unknown, key=lambda cause: (cause.slot, cause))
            ),
        )

    def _area(self, area: Area, is_write: bool, more: Iterable[int] = ()) -> tuple[Origin, ...]:
        return self._origins([*self._recorder.areas.get(AreaAccess(area, is_write), ()), *more])

    def _dynptr(self, helper: str) -> Iterable[int]:
        """Return the calls of a dynptr helper that may be about the packet."""
        if "bpf_dynptr_from_xdp" not in self._recorder.kfuncs:
            return ()
        return self._recorder.helpers.get(HELPERS.index(helper), ())

    def _adjustments(self) -> Iterator[Adjustment]:
        for place in Place:
            found: dict[tuple[bool, bool], list[int]] = {}
            for (where, slot), delta in self._recorder.adjustments.items():
                if where is place:
                    lowers, raises = _signs(delta)
                    grows, shrinks = (raises, lowers) if place is Place.TAIL else (lowers, raises)
                    found.setdefault((grows, shrinks), []).append(slot)
            for (grows, shrinks), slots in sorted(found.items()):
                yield Adjustment(place, grows, shrinks, self._origins(slots))

    def _redirects(self) -> Iterator[Redirect]:
        for slot, call in sorted(self._recorder.redirects.items()):
            yield Redirect(
                None if call.maps is None else tuple(sorted(call.maps)),
                _values(call.target),
                _values(call.flags),
                self._origin(slot),
            )

    def _tail_calls(self) -> Iterator[TailCall]:
        for slot, use in sorted(self._recorder.tail_calls.items()):
            yield TailCall(
                tuple(sorted(use.arrays)),
                _values(use.index),
                tuple(self._subject.function_name(entry) for entry in sorted(use.functions)),
                use.functions != {0},
                self._origin(slot),
            )

    def _map_types(self) -> dict[MapType | int, tuple[Origin, ...]]:
        slots: dict[MapType | int, set[int]] = {}
        for name, where in self._recorder.maps.items():
            known = self._subject.maps.get(name)
            if known is not None:
                slots.setdefault(known.type, set()).update(where)
        return self._by_key(slots)

    def _context(self) -> Iterator[ContextAccess]:
        is_xdp = self._subject.type == ProgType.XDP
        for access, slots in sorted(self._recorder.fields.items()):
            name = XDP_MD_FIELDS.get(access.offset & ~3) if is_xdp else None
            yield ContextAccess(
                access.offset, access.size, name, access.is_write, self._origins(slots)
            )

    def _loops(self) -> Loops:
        recorder = self._recorder
        back_edges: set[int] = set()
        may_goto: set[int] = set()
        for start in recorder.blocks:
            for step in self._graph.blocks[start].steps:
                if step.kind is Kind.BRANCH and step.instruction.opcode == _MAY_GOTO:
                    may_goto.add(step.slot)
        for entry in recorder.bodies:
            back_edges |= self._graph.body(entry).back_edges
        calls = {
            slot
            for number, slots in recorder.helpers.items()
            if number in LOOPING_HELPERS
            for slot in slots
        }
        for name, slots in recorder.kfuncs.items():
            if name.startswith("bpf_iter_") and name.endswith("_next"):
                calls |= slots
        reachable = {slot for start in recorder.blocks for slot in self._graph.blocks[start].slots}
        return Loops(
            self._origins(back_edges & reachable), self._origins(may_goto), self._origins(calls)
        )

    def _functions(self) -> Iterator[FunctionUse]:
        recorder, name_of = self._recorder, self._subject.function_name
        for entry in sorted(recorder.bodies):
            yield FunctionUse(
                name_of(entry),
                entry,
                # Bit 1 is that of r1.
                max(self._graph.arguments(entry).bit_length() - 1, 0),
                _rounded(recorder.depths.get(entry, 0), _CELL),
                self._subject.is_replaceable(entry),
                entry in recorder.callbacks,
                tuple(name_of(callee) for callee in sorted(recorder.calls.get(entry, ()))),
            )

    def _stack(self) -> Stack:
        """Find the deepest chain; functions that call themselves count once."""
        calls = self._recorder.calls
        deepest: dict[int, int] = {}
        below: dict[int, int | None] = {}
        # A stack of our own: a hostile program may nest calls deeper than Python's stack.
        path = [(0, iter(sorted(calls.get(0, ()))))]
        entered = {0}
        while path:
            entry, callees = path[-1]
            callee = next((callee for callee in callees if callee not in entered), None)
            if callee is not None:
                entered.add(callee)
                path.append((callee, iter(sorted(calls.get(callee, ())))))
                continue
            path.pop()
            known = [callee for callee in sorted(calls.get(entry, ())) if callee in deepest]
            below[entry] = max(known, key=lambda callee: deepest[callee], default=None)
            own = _rounded(self._recorder.depths.get(entry, 0), _FRAME_UNIT)
            deepest[entry] = own + max((deepest[callee] for callee in known), default=0)
        chain: list[str] = []
        at: int | None = 0
        while at is not None:
            chain.append(self._subject.function_name(at))
            at = below[at]
        return Stack(deepest[0], tuple(chain))


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _values(scalar: Scalar) -> frozenset[int] | None:
    return None if scalar.values is None else frozenset(scalar.values)


def _signs(delta: Scalar) -> tuple[bool, bool]:
    """Return whether 32 bits can be negative, and whether they can be positive."""
    if delta.values is not None:
        return (
            any(value >> 31 for value in delta.values),
            any(0 < value < 1 << 31 for value in delta.values),
        )
    return delta.hi >> 31 > 0, delta.lo < 1 << 31
