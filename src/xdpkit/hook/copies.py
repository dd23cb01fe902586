# SPDX-License-Identifier: Apache-2.0
"""Copies of programs that count what they return, or report it, and copies that do so no longer.

A copy is loaded from what the original was loaded from, its image, and carries that image, so that
the next copy can be made of it. It counts in a map of its own, ``xdpkit_counts``: an entry for each
RX queue, or a single one for a program that serves a single queue. What has been counted so far
stays where it is: the next copy counts on in the same map, or, where that does not fit any more,
has it bound and counts in another. What a program returned is the sum over all of them.

One more entry, in which nothing is counted, says whose map it is: programs can be on several hooks,
and carry the maps of one to another::

    char magic[4]           "xdpC"
    u32 ifindex
    u64 netns_cookie
    u32 queue               the one RX queue that it is for, 0xffffffff for all
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from xdpkit.errors import RequirementUnmet, UsageError, VerifierError
from xdpkit.kernel.kfuncs import throw_in
from xdpkit.kernel.maps import Map
from xdpkit.syscalls import netns
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType, ProgFlags

if TYPE_CHECKING:
    from xdpkit import rewrite
    from xdpkit.hook.work import Reader, Work
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Program
    from xdpkit.kernel.image import Image, MapReference

COUNTS_MAP = "xdpkit_counts"
LEAVES_MAP = "xdpkit_leaves"
"""Program arrays that xdpkit made, for copies that count or report."""

NO_ARRAYS: Mapping[int, int] = MappingProxyType({})

_OWNER = struct.Struct("=4sIQI")
_MAGIC = b"xdpC"
_ALL_QUEUES = 0xFFFFFFFF
_MAX_MAPS = 64  # MAX_USED_MAPS in include/linux/bpf.h
_READERS_MAPS = 3
# The verifier's log has how much stack each function uses.
_STATISTICS = 4


@dataclass(frozen=True, slots=True)
class Counters:
    """A map of counters.

    Attributes:
        id: of the map.
        entries: how many it counts in: one for each RX queue, or one for a single queue.
        hook: whose it is: the cookie of a namespace, and the index of an interface in it.
        queue: the one RX queue that it is for; None: all.
    """

    id: int
    entries: int
    hook: tuple[int, int]
    queue: int | None


def counters_of(map_ids: Iterable[int], original: Image | None) -> tuple[Counters, ...]:
    """Return the maps in which a program and those that it is a copy of have counted.

    Args:
        map_ids: the maps that it uses, or that are bound to it.
        original: its image; a map that its author calls so is none of ours.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    from xdpkit.hook import records

    its_own = {each.id for each in original.maps} if original is not None else set()
    found = (
        _read_owner(map_id, fd, info.max_entries - 1)
        for map_id, fd, info in records.opened(sorted(set(map_ids) - its_own))
        if info.name == COUNTS_MAP.encode()
        and info.type == MapType.PERCPU_ARRAY
        and info.value_size == _value_size()
        and info.max_entries > 1
    )
    return tuple(each for each in found if each is not None)


def _read_owner(map_id: int, fd: Fd, entries: int) -> Counters | None:
    with Map(Fd.duplicate(fd.fileno())) as counters:
        magic, ifindex, cookie, queue = _OWNER.unpack_from(counters[entries][0])
    if magic != _MAGIC:
        return None
    return Counters(map_id, entries, (cookie, ifindex), None if queue == _ALL_QUEUES else queue)


def _write_owner(counters: Map, hook: tuple[int, int], queue: int | None) -> None:
    last = counters.max_entries - 1
    cookie, ifindex = hook
    data = _OWNER.pack(_MAGIC, ifindex, cookie, _ALL_QUEUES if queue is None else queue)
    counters[last] = [data.ljust(counters.value_size, b"\0")] * len(counters[last])


def counted_copy(
    original: Image,
    *,
    work: Work,
    entries: int,
    interface: Interface,
    logical_id: int = 0,
    queue: int | None = None,
    counted: Sequence[Counters] = (),
    arrays: Mapping[int, int] = NO_ARRAYS,
    held: Iterable[int] = (),
    like: Program | None = None,
) -> Program:
    """Load a copy of a program that does the same, and counts what it returns, or reports it.

    Args:
        original: the program.
        work: what it is to do.
        entries: how many RX queues are to be told apart.
        interface: whose hook it is for.
        logical_id: what it says in a report that it is.
        queue: the one RX queue that it serves; None: it is asked for each packet.
        counted: where it has counted before, on this hook.
        arrays: the ids of the program arrays that it is to load in place of those that it does, by
            the slot of the load.
        held: the ids of maps that the copy is to hold for what it tail-calls.
        like: the program itself, if this process loaded it.

    Raises:
        RequirementUnmet: it cannot be done, and why.
        ObjectFormatError: the image contradicts itself.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused otherwise.
    """
    from xdpkit.kernel import patch
    from xdpkit.kernel.reload import load_image

    entries = entries if queue is None else 1
    made = rewritten(
        original,
        work=work,
        entries=entries,
        interface=interface,
        logical_id=logical_id,
        arrays=arrays,
    )
    hook = interface.netns_cookie, interface.index
    fitting = [each.id for each in counted if (each.entries, each.queue) == (entries, queue)]
    with contextlib.ExitStack() as temporary:
        code = bytearray(made.body.code)
        number = 0
        if work.counting:
            # The copy holds it from its load on.
            number = fitting[-1] if fitting else _new_map(temporary, entries, hook, queue)
            patch.set_map(code, made.counts_slots, number)
        for map_id, slots in made.readers_slots.items():
            patch.set_map(code, slots, map_id)
        _move(counted, hook)
        image = replace(
            original,
            code=bytes(code),
            func_info=made.body.func_info,
            line_info=made.body.line_info,
            maps=(
                *original.maps,
                *_named(LEAVES_MAP, set(arrays.values())),
                *_named(COUNTS_MAP, {each.id for each in counted} | ({number} - {0})),
                *_named("reader", made.readers_slots.keys()),
            ),
        )
        try:
            with _in_place(original, interface):
                return load_image(
                    image,
                    original=original,
                    like=like,
                    counters=number,
                    held=tuple(_named("held", set(held) - set(arrays.values()))),
                )
        except VerifierError as error:
            raise _refused_by_the_verifier(original, work, error) from error


def uncounted_copy(
    original: Image,
    *,
    interface: Interface,
    counted: Sequence[Counters] = (),
    held: Iterable[int] = (),
    like: Program | None = None,
) -> Program:
    """Load a program again as it was, with the maps bound in which copies of it have counted.

    Arguments are those of :func:`counted_copy`.

    Raises:
        RequirementUnmet: something that it needs has gone.
        ObjectFormatError: the image contradicts itself.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused.
    """
    from xdpkit.kernel.reload import load_image

    _move(counted, (interface.netns_cookie, interface.index))
    counters = {each.id for each in counted}
    image = replace(original, maps=(*original.maps, *_named(COUNTS_MAP, counters)))
    with _in_place(original, interface):
        return load_image(
            image, original=original, like=like, held=tuple(_named("held", set(held)))
        )


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The instructions of a copy.

    Attributes:
        body: the instructions.
        counts_slots: the loads of the map that it counts in; empty if it does not count.
        readers_slots: the loads of a reader's maps, by the map's id; empty without a reader.
    """

    body: rewrite.Body
    counts_slots: tuple[int, ...]
    readers_slots: Mapping[int, tuple[int, ...]]


def rewritten(
    original: Image,
    *,
    work: Work,
    entries: int,
    interface: Interface,
    logical_id: int = 0,
    arrays: Mapping[int, int] = NO_ARRAYS,
) -> Rewritten:
    """Return a program's instructions as those of a copy; see :func:`counted_copy`.

    Raises:
        RequirementUnmet: it cannot be done, and why.
        ObjectFormatError: the image contradicts itself.
    """
    from xdpkit import rewrite
    from xdpkit.kernel import patch

    what = work.what(original.name)
    code = bytearray(original.code)
    for slot, array in arrays.items():
        patch.set_map(code, (slot,), array)
    body = rewrite.Body(bytes(code), original.func_info, original.line_info)
    if original.ifindex and not original.flags & ProgFlags.XDP_DEV_BOUND_ONLY:
        raise RequirementUnmet(
            what, cause=f"it runs on the NIC itself, where xdpkit cannot {what.split()[0]}"
        )
    used = len(rewrite.maps_of(body))
    if work.counting and used >= _MAX_MAPS:
        raise RequirementUnmet(
            what,
            cause=f"it uses {_MAX_MAPS} maps, which is the most that the kernel allows, and the"
            " counters are one more",
        )
    if work.reader is not None and used + bool(work.counting) + _READERS_MAPS > _MAX_MAPS:
        raise RequirementUnmet(
            what,
            cause=f"it uses {used} maps, {_MAX_MAPS} are the most that the kernel allows, and the"
            f" reader's are {_READERS_MAPS} more",
        )
    making = _Making(original, body, work, entries, logical_id)
    try:
        return making.made(None)
    except RequirementUnmet:
        # The verifier knows better how much stack it uses.
        stack = _stack_of(original, interface)
        if stack is None:
            raise
    return making.made(stack)


class _Making:
    """How a copy's instructions are made, whoever knows how much stack the program uses."""

    def __init__(
        self, original: Image, body: rewrite.Body, work: Work, entries: int, logical_id: int
    ) -> None:
        self._name = original.name
        self._body = body
        self._work = work
        self._entries = entries
        self._logical_id = logical_id
        self._frags = bool(original.flags & ProgFlags.XDP_HAS_FRAGS)
        self._throw = throw_in(original.code)
        self._callback = None if self._throw is None else _exception_callback(original, body)

    def made(self, stack: tuple[int, ...] | None) -> Rewritten:
        body = self._body
        counts: tuple[int, ...] = ()
        if self._work.counting:
            counting = self._counting(stack)
            body, counts = counting.body, counting.map_slots
        if self._work.reader is None:
            return Rewritten(body, counts, {})
        return self._tapped(body, counts, self._work.reader, stack)

    def _counting(self, stack: tuple[int, ...] | None) -> rewrite.Counting:
        from xdpkit import rewrite

        return rewrite.counting(
            self._body,
            entries=self._entries,
            count_bytes=self._work.counting.with_bytes,
            frags=self._frags,
            throw=self._throw,
            exception_callback=self._callback,
            stack=stack,
            name=self._name,
        )

    def _tapped(
        self,
        body: rewrite.Body,
        counts: tuple[int, ...],
        reader: Reader,
        stack: tuple[int, ...] | None,
    ) -> Rewritten:
        from xdpkit import rewrite

        tapping = rewrite.tapping(
            body,
            rewrite.Reporting(
                program=self._logical_id,
                name=self._name,
                netns=reader.netns,
                actions=reader.actions,
                snaplen=reader.snaplen,
                sample=reader.sample,
            ),
            frags=self._frags,
            throw=self._throw,
            has_callback=self._callback is not None,
            stack=stack,
            moved=counts,
        )
        return Rewritten(
            tapping.body,
            tapping.moved,
            {
                reader.ring: tapping.ring_slots,
                reader.credits: tapping.credits_slots,
                reader.spending: tapping.spending_slots,
            },
        )


def _exception_callback(original: Image, body: rewrite.Body) -> int | None:
    from xdpkit import rewrite
    from xdpkit.kernel.btf import by_id

    types = by_id(original.btf_id) if original.btf_id else None
    return None if types is None else rewrite.exception_callback(body, types)


def _stack_of(original: Image, interface: Interface) -> tuple[int, ...] | None:
    """Load a program as it is, to learn from the verifier how much stack it uses."""
    from xdpkit import rewrite
    from xdpkit.kernel.reload import load_image

    with (
        _in_place(original, interface),
        load_image(original, log_level=_STATISTICS) as loaded,
    ):
        return rewrite.stack_in_log(loaded.log)


def _refused_by_the_verifier(original: Image, work: Work, error: VerifierError) -> RequirementUnmet:
    from xdpkit.kernel.verifier import read_log

    does = "counts" if work.reader is None else "reports"
    return RequirementUnmet(
        work.what(original.name),
        cause=f"the verifier refuses the copy that {does}:"
        f" {read_log(error.log).message or 'it does not say why'}",
    )


@contextlib.contextmanager
def _in_place(original: Image, interface: Interface) -> Iterator[None]:
    """Be where the kernel finds the device that a program is bound to, if it is bound.

    Raises:
        RequirementUnmet: it is bound to another one.
    """
    if not original.ifindex:
        yield
        return
    if original.ifindex != interface.index:
        raise RequirementUnmet(
            f"load {original.name} again for {interface.name}",
            cause=f"it was loaded for interface {original.ifindex}, and must not run on any other",
        )
    with netns.entered(interface.netns):
        yield


def _named(kind: str, numbers: AbstractSet[int]) -> Iterator[MapReference]:
    """Yield maps with names of their own among those of a program."""
    from xdpkit.kernel.image import MapReference

    for number in sorted(numbers):
        yield MapReference(number, f"{kind} {number}")


def _new_map(
    temporary: contextlib.ExitStack, entries: int, hook: tuple[int, int], queue: int | None
) -> int:
    made = temporary.enter_context(
        Map.create(
            MapType.PERCPU_ARRAY,
            key_size=4,
            value_size=_value_size(),
            max_entries=entries + 1,
            name=COUNTS_MAP,
        )
    )
    _write_owner(made, hook, queue)
    return made.id


def _move(counted: Iterable[Counters], hook: tuple[int, int]) -> None:
    """Have maps be this hook's: those of an interface that was elsewhere before."""
    for each in counted:
        if each.hook != hook:
            with contextlib.suppress(UsageError), Map.from_id(each.id) as counters:
                _write_owner(counters, hook, each.queue)


def _value_size() -> int:
    from xdpkit import rewrite

    # With room for bytes from the start: when they come in later, packets go on in the same map.
    return rewrite.value_size(count_bytes=True)
