# SPDX-License-Identifier: Apache-2.0
"""What calls of helpers and kernel functions do to a state.

The actions that the redirect helpers return are those of Linux 5.13 and later
(``bpf_xdp_redirect``, ``__bpf_xdp_redirect_map``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from xdpkit.analysis.effects import HELPER_EFFECTS, KFUNC_EFFECTS, Effect, Result, Size, Write
from xdpkit.analysis.machine import forget_everything, stack_places
from xdpkit.analysis.state import (
    ANY_VALUE,
    HAVOC,
    KERNEL,
    UNSET,
    Region,
    RegionKind,
    State,
    Value,
    is_on_stack,
    pointer,
)
from xdpkit.analysis.subject import Subject
from xdpkit.analysis.usage import Place, Recorder
from xdpkit.analysis.values import (
    TOP,
    Cause,
    CauseKind,
    Scalar,
    join,
    truncate,
    unknown,
)
from xdpkit.uapi.bpf import MAX_BPF_STACK, MapType, ProgType, XdpAction
from xdpkit.uapi.helpers import HELPERS

if TYPE_CHECKING:
    from xdpkit.analysis.report import Analysis

TAIL_CALL = HELPERS.index("tail_call")
THROW = "bpf_throw"

_REDIRECT = HELPERS.index("redirect")
_REDIRECT_MAP = HELPERS.index("redirect_map")
_LOOP = HELPERS.index("loop")
_FOR_EACH = HELPERS.index("for_each_map_elem")
_TIMER_SET_CALLBACK = HELPERS.index("timer_set_callback")
_ADJUSTMENTS = {
    HELPERS.index("xdp_adjust_head"): Place.HEAD,
    HELPERS.index("xdp_adjust_meta"): Place.META,
    HELPERS.index("xdp_adjust_tail"): Place.TAIL,
}

_FALLBACK_MASK = 3  # the flags of bpf_redirect_map() that are the action if the slot is empty
_BROADCAST = 8  # BPF_F_BROADCAST
_EXCLUDE_INGRESS = 16  # BPF_F_EXCLUDE_INGRESS
_DEVMAPS = (MapType.DEVMAP, MapType.DEVMAP_HASH)
_MAPS_OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)

_WIDEN_AFTER = 4


class TooComplex(Exception):
    """The program cannot be followed; the text says why."""


class Enter(Protocol):
    """Follow a function of the program."""

    def __call__(self, entry: int, state: State, arguments: Sequence[Value]) -> Value | None:
        """Change the state's frames as the function does; return what it returns.

        None if it does not return.
        """
        ...


def helper_name(number: int) -> str:
    """Return ``bpf_redirect`` for 23, and the number itself for what has no name."""
    return f"bpf_{HELPERS[number]}" if 0 <= number < len(HELPERS) else f"helper {number}"


class Calls:
    """The helpers and kernel functions, as one subject calls them.

    Args:
        subject: the program.
        recorder: where the calls are taken down.
        enter: follows a callback.
    """

    def __init__(self, subject: Subject, recorder: Recorder, enter: Enter) -> None:
        self._subject = subject
        self._recorder = recorder
        self._enter = enter

    def helper(self, state: State, number: int, slot: int) -> None:
        """Apply the call of a helper that returns."""
        self._recorder.helpers[number].add(slot)
        effect = HELPER_EFFECTS.get(number)
        name = helper_name(number)
        arguments = state.regs[1:6]
        if number in _ADJUSTMENTS:
            delta = truncate(arguments[1].scalar or TOP, 32)
            self._recorder.adjusted(_ADJUSTMENTS[number], delta, slot)
        if effect is None:
            self._give_away(state, arguments, slot)
        else:
            self._apply(state, effect, arguments, slot)
            if effect.callback:
                self._call_back(state, number, effect, arguments, slot)
        result = self._redirect(number, arguments, slot) or self._result(
            effect, arguments, Cause(CauseKind.HELPER, name, slot)
        )
        _return(state, result)

    def kfunc(self, state: State, name: str, count: int | None, slot: int) -> None:
        """Apply the call of a kernel function that returns.

        Args:
            count: how many arguments its prototype has, None if that is not known.
        """
        self._recorder.kfuncs[name].add(slot)
        effect = KFUNC_EFFECTS.get(name)
        arguments = state.regs[1:6]
        if effect is None:
            self._give_away(state, arguments[:count], slot)
        else:
            self._apply(state, effect, arguments, slot)
        if name.startswith("bpf_dynptr_slice"):
            self._recorder.touched_packet(False, slot)
            if name.endswith("_rdwr"):
                self._recorder.touched_packet(True, slot)
        _return(state, self._result(effect, arguments, Cause(CauseKind.KFUNC, name, slot)))

    def _apply(self, state: State, effect: Effect, arguments: Sequence[Value], slot: int) -> None:
        recorder = self._recorder
        if effect.reads_packet:
            recorder.touched_packet(False, slot)
        if effect.writes_packet:
            recorder.touched_packet(True, slot)
        for argument in arguments[: effect.arguments]:
            recorder.handed_over(argument, False, slot)
            recorder.took_address(argument, slot)
            for number, distance in state.places_on_stack(argument):
                places = stack_places(distance, 0)
                recorder.stack(state.frames[number], min(places, default=-MAX_BPF_STACK))
        for write in effect.writes:
            recorder.handed_over(arguments[write.argument - 1], True, slot)
            self._overwrite(state, write, arguments)

    def _overwrite(self, state: State, write: Write, arguments: Sequence[Value]) -> None:
        size = self._size(write, arguments)
        target = arguments[write.argument - 1]
        if target.may_be_anywhere:
            forget_everything(state)
        for number, distance in state.places_on_stack(target):
            places = stack_places(distance, 0)
            frame = state.frame(number)
            is_sure = len(places) == 1 and len(target.pointers) == 1
            for place in places:
                frame.forget(place, min(place + size, 0), is_overwritten=is_sure)
            if not places:
                frame.forget(-MAX_BPF_STACK, 0, is_overwritten=False)

    def _size(self, write: Write, arguments: Sequence[Value]) -> int:
        """Return how many bytes are written at most."""
        if write.register:
            scalar = arguments[write.register - 1].scalar
            return MAX_BPF_STACK if scalar is None else min(scalar.hi, MAX_BPF_STACK)
        if write.size is Size.MAP_VALUE:
            maps = [self._subject.maps.get(name) for name in map_names(arguments[0]) or {""}]
            sizes = [MAX_BPF_STACK if known is None else known.value_size for known in maps]
            return max(sizes)
        assert isinstance(write.size, int)
        return write.size

    def _give_away(self, state: State, arguments: Sequence[Value], slot: int) -> None:
        """Pass arguments to a function of which nothing is known."""
        for argument in arguments:
            self._recorder.handed_over(argument, False, slot)
            self._recorder.handed_over(argument, True, slot)
            self._recorder.took_address(argument, slot)
            if argument.may_be_anywhere:
                state.escape_all()
            for number, distance in state.places_on_stack(argument):
                lowest = min(stack_places(distance, 0), default=-MAX_BPF_STACK)
                self._recorder.stack(state.frames[number], lowest)
                state.frame(number).escape(lowest)
        for entry in _functions(arguments):
            self._repeat(state, (entry,), [HAVOC] * 5, slot)

    def _call_back(
        self,
        state: State,
        number: int,
        effect: Effect,
        arguments: Sequence[Value],
        slot: int,
    ) -> None:
        function = arguments[effect.callback - 1]
        functions = _functions((function,))
        if not functions or len(functions) != len(function.pointers):
            raise TooComplex("which function is called back is not known")
        value = self._map_value(arguments[0])
        if number == _LOOP:
            index = Value(unknown(32, Cause(CauseKind.HELPER, helper_name(number), slot)))
            passed = [index, arguments[2]]
        elif number == _FOR_EACH:
            passed = [arguments[0], value, value, arguments[2]]
        elif number == _TIMER_SET_CALLBACK:
            passed = [HAVOC, value, value]
        else:
            passed = [pointer(KERNEL), arguments[2]]
        if effect.callback_later:
            for entry in functions:
                self._recorder.callbacks[entry].add(slot)
                self._enter(entry, State([UNSET] * 11, ()), _without_stack(passed))
        else:
            self._repeat(state, functions, passed, slot)

    def _repeat(
        self, state: State, functions: Iterable[int], arguments: Sequence[Value], slot: int
    ) -> None:
        """Call functions back, any number of times and also not at all."""
        changed, rounds = True, 0
        while changed:
            changed = False
            for entry in functions:
                self._recorder.callbacks[entry].add(slot)
                after = state.copy()
                if self._enter(entry, after, arguments) is not None:
                    changed |= state.join(after, widening=rounds > _WIDEN_AFTER)
            rounds += 1

    def _map_value(self, first: Value) -> Value:
        names = map_names(first) or {""}
        return Value(
            None,
            tuple((Region(RegionKind.MAP_VALUE, name, ANY_VALUE), TOP) for name in sorted(names)),
        )

    def _result(self, effect: Effect | None, arguments: Sequence[Value], cause: Cause) -> Value:
        result = Result.NUMBER if effect is None else effect.result
        match result:
            case Result.NUMBER32:
                return Value(unknown(32, cause))
            case Result.MEMORY:
                return pointer(Region(RegionKind.KERNEL, cause.name), nullable_at=cause.slot)
            case Result.MEMORY_NOT_NULL:
                return pointer(Region(RegionKind.KERNEL, cause.name))
            case Result.MAP_VALUE:
                return self._looked_up(arguments[0], cause.slot)
        return Value(unknown(64, cause))

    def _looked_up(self, maps: Value, slot: int) -> Value:
        names = sorted(map_names(maps) or {""})
        known = [self._subject.maps.get(name) for name in names]
        if any(found is not None and found.type in _MAPS_OF_MAPS for found in known):
            inner = Region(RegionKind.MAP, f"{names[0]}[]")
            return pointer(inner, nullable_at=slot)
        null = pointer(KERNEL, nullable_at=slot).scalar
        return Value(null, self._map_value(maps).pointers)

    def _redirect(self, number: int, arguments: Sequence[Value], slot: int) -> Value | None:
        """Return the actions that a redirect helper returns, None for other helpers."""
        if self._subject.type != ProgType.XDP or number not in (_REDIRECT, _REDIRECT_MAP):
            return None
        if number == _REDIRECT:
            flags = arguments[1].scalar or TOP
            target = truncate(arguments[0].scalar or TOP, 32)
            self._recorder.redirected(slot, target, flags, None)
            actions = {XdpAction.REDIRECT} if 0 in flags else set()
            if flags.constant != 0:
                actions.add(XdpAction.ABORTED)
        else:
            flags = arguments[2].scalar or TOP
            names = map_names(arguments[0])
            self._recorder.redirected(slot, arguments[1].scalar or TOP, flags, names or frozenset())
            types: set[int | None] = set()
            for name in names or {""}:
                known = self._subject.maps.get(name)
                types.add(None if known is None else int(known.type))
            actions = _redirect_map_actions(flags, types)
        numbers = {int(action): (slot,) for action in actions}
        return Value(Scalar(numbers, min(numbers), max(numbers)))


def _redirect_map_actions(flags: Scalar, types: Iterable[int | None]) -> set[XdpAction]:
    if flags.values is None:
        return set(XdpAction)
    actions = set()
    for map_type in types:
        for value in flags.values:
            for is_devmap in (True, False) if map_type is None else (map_type in _DEVMAPS,):
                allowed = _FALLBACK_MASK
                if is_devmap:
                    allowed |= _BROADCAST | _EXCLUDE_INGRESS
                if value & ~allowed:
                    actions.add(XdpAction.ABORTED)
                    continue
                actions.add(XdpAction.REDIRECT)
                if not (is_devmap and value & _BROADCAST):
                    actions.add(XdpAction(value & _FALLBACK_MASK))
    return actions


def map_names(value: Value) -> frozenset[str]:
    """Return the names of the maps that a register may refer to; empty if not all are known."""
    if value.scalar is not None or any(
        region.kind is not RegionKind.MAP for region, _ in value.pointers
    ):
        return frozenset()
    return frozenset(region.name for region, _ in value.pointers)


class Leaf(NamedTuple):
    """What is known of programs that a tail call can reach.

    Attributes:
        returned: what they return; None: nothing, or there are none.
        throws: whether one of them may throw, which ends all of the program.
    """

    returned: Scalar | None
    throws: bool


LeafOf = Callable[["Subject | Analysis"], Leaf]


def reached(
    subject: Subject, arrays: frozenset[str], index: Scalar, slot: int, leaf_of: LeafOf
) -> Leaf:
    """Return what the programs do that a tail call can reach.

    Args:
        subject: the caller. arrays: the program arrays, empty if not known.
        index: which slots of them.
        slot: of the call, which becomes the origin.
        leaf_of: what is known of a program in an array (so far).
    """
    result: Scalar | None = None
    throws = False
    for name in sorted(arrays) or ["an unknown array"]:
        known = subject.maps.get(name)
        cause = Cause(CauseKind.TAIL_CALL, name, slot)
        if known is None or known.programs is None:
            return Leaf(unknown(64, cause), True)
        for place, program in known.programs.items():
            if place not in index:
                continue
            leaf = leaf_of(program)
            throws |= leaf.throws
            if leaf.returned is not None:
                found = _brought_in(leaf.returned, cause)
                result = found if result is None else join(result, found)
    return Leaf(result, throws)


def _brought_in(returned: Scalar, cause: Cause) -> Scalar:
    """Return what another program returns, with a cause and origin in this one."""
    if returned.values is None:
        return returned._replace(causes=frozenset((cause,)))
    return returned._replace(
        values=dict.fromkeys(returned.values, (cause.slot,)), causes=frozenset()
    )


def _functions(values: Iterable[Value]) -> list[int]:
    """Return the functions whose addresses are among some values."""
    return [
        region.number
        for value in values
        for region, _ in value.pointers
        if region.kind is RegionKind.FUNCTION
    ]


def _without_stack(arguments: Iterable[Value]) -> list[Value]:
    return [UNSET if is_on_stack(argument) else argument for argument in arguments]


def _return(state: State, result: Value) -> None:
    state.regs[0] = result
    for register in range(1, 6):
        state.regs[register] = UNSET
