# SPDX-License-Identifier: Apache-2.0
"""Which programs a hook's programs reach by tail calls, as the kernel has it now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdpkit.errors import RequirementUnmet
from xdpkit.hook import records
from xdpkit.hook.copies import LEAVES_MAP, Counters, counters_of
from xdpkit.hook.roots import QUEUES_MAP
from xdpkit.hook.settings import Counting
from xdpkit.kernel.maps import Map
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.hook.record import StoredRecord
    from xdpkit.kernel.image import Image

Hook = tuple[int, int]
"""Which hook it is: the cookie of a namespace, and the index of an interface in it."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A program.

    Attributes:
        id: the program. name: in full, where that is known.
        image: what it takes to load it again, or the one that it is a copy of; None: nobody kept
            it. problem: why it cannot be had, where it was kept.
        image_maps: where that is kept; copies have it in common.
        records: what xdpkit wrote down with it, for each hook.
        counters: where it, and those that it is a copy of, have counted, for whichever hook.
        arrays: the program arrays that it uses.
    """

    id: int
    name: str
    image: Image | None
    problem: str | None
    image_maps: frozenset[int]
    records: tuple[StoredRecord, ...]
    counters: tuple[Counters, ...]
    arrays: frozenset[int]

    def record_for(self, hooks: Collection[Hook]) -> StoredRecord | None:
        """Return what was written down with it for a hook, by whichever of its names."""
        return next((each for each in self.records if each.record.hook in hooks), None)

    def counters_for(self, hooks: Collection[Hook]) -> tuple[Counters, ...]:
        """Return where it, and those that it is a copy of, have counted for a hook."""
        return tuple(each for each in self.counters if each.hook in hooks)

    def counting_for(self, hooks: Collection[Hook]) -> Counting:
        """Return what it counts, as a copy that was made for a hook."""
        stored = self.record_for(hooks)
        return stored.record.counting if stored is not None else Counting.OFF

    def tap_for(self, hooks: Collection[Hook]) -> int:
        """Return the ring that it reports to, as a copy that was made for a hook; 0: none."""
        stored = self.record_for(hooks)
        return stored.record.tap if stored is not None else 0

    def logical_id_for(self, hooks: Collection[Hook]) -> int:
        """Return the id of the program that it is a copy of, or its own."""
        stored = self.record_for(hooks)
        return (stored.record.logical_id if stored is not None else 0) or self.id


@dataclass(slots=True)
class Web:
    """Programs, and the program arrays by which they reach one another.

    Attributes:
        programs: by id.
        arrays: the program in each slot, by the array's id. But those by which a root runs the
            programs of the RX queues: what is in them is on the hook.
        names: of the arrays, as the kernel has them. sizes: how many slots they have.
        authored: those that programs were loaded with, and so are none that xdpkit made.
    """

    programs: dict[int, Reached] = field(default_factory=dict)
    arrays: dict[int, dict[int, int]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    authored: set[int] = field(default_factory=set)

    def is_of_copies(self, array: int) -> bool:
        """Whether xdpkit made an array, for copies that count or report."""
        return self.names.get(array) == LEAVES_MAP and array not in self.authored

    def reached_from(self, first: int, without: Collection[int] = ()) -> set[int]:
        """Return the programs that one can reach, with itself; by other arrays than these."""
        found = {first}
        waiting = [first]
        while waiting:
            program = self.programs.get(waiting.pop())
            arrays = program.arrays.difference(without) if program is not None else ()
            for array in arrays:
                new = set(self.arrays[array].values()) - found
                found |= new
                waiting += new
        return found

    def callers_of(self, number: int) -> Iterator[int]:
        """Yield the programs that may tail-call one."""
        for program in self.programs.values():
            if any(number in self.arrays[array].values() for array in program.arrays):
                yield program.id


def look(programs: Iterable[int], known: Mapping[int, Image] | None = None) -> Web:
    """Look at programs and all that they reach. What has gone meanwhile is left out.

    Args:
        programs: their ids.
        known: the images of those that this process has loaded.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
        KernelRefused: the kernel refused.
    """
    web = Web()
    waiting = list(programs)
    known = known or {}
    while waiting:
        number = waiting.pop()
        if number in web.programs:
            continue
        program = _see(number, known, web)
        if program is not None:
            web.programs[number] = program
            waiting += [each for array in program.arrays for each in web.arrays[array].values()]
    return web


def _see(number: int, known: Mapping[int, Image], web: Web) -> Reached | None:
    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
    if descriptor is None:
        return None
    with descriptor:
        info, map_ids = bpf.prog_info(descriptor.fileno())
        found = records.find_all(descriptor.fileno())
        image, problem = known.get(number), None
        if image is None:
            try:
                image = records.image_of(descriptor.fileno())
            except RequirementUnmet as error:
                problem = error.cause
    name = image.name if image is not None else info.name.decode("ascii", "backslashreplace")
    counters = counters_of(map_ids, image)
    return Reached(
        id=number,
        name=name,
        image=image,
        problem=problem,
        image_maps=records.image_maps(map_ids),
        records=found,
        counters=counters,
        arrays=frozenset(_read_arrays(map_ids, image, web)),
    )


def _read_arrays(map_ids: Collection[int], image: Image | None, web: Web) -> Iterator[int]:
    """Yield which of the maps are program arrays; add those that are new."""
    authored = {each.id for each in image.maps} if image is not None else set()
    web.authored |= authored
    yield from web.arrays.keys() & set(map_ids)
    for map_id, fd, info in records.opened([each for each in map_ids if each not in web.arrays]):
        is_of_a_root = info.name == QUEUES_MAP.encode() and map_id not in authored
        if info.type != MapType.PROG_ARRAY or is_of_a_root:
            continue
        with Map(Fd.duplicate(fd)) as array:
            web.arrays[map_id] = dict(array.items())
        web.names[map_id] = info.name.decode("ascii", "backslashreplace")
        web.sizes[map_id] = info.max_entries
        yield map_id


@dataclass(frozen=True, slots=True)
class OtherUse:
    """That programs use an array, or reach it, that are not the hook's alone.

    Attributes:
        reason: who does, as the rest of a sentence.
        is_attached: whether xdpkit attached one of them elsewhere, so that it gets packets.
    """

    reason: str
    is_attached: bool


def used_by_others(web: Web, hooks: Collection[Hook]) -> dict[int, OtherUse]:
    """Return the arrays that programs use, or reach, that are not the hook's alone.

    A process may still hold a program of which the hook's is a copy, or another copy of it.

    Args:
        web: the hook's programs.
        hooks: the hook, by all its names.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    if not web.arrays:
        return {}
    images = {each for program in web.programs.values() for each in program.image_maps}
    others: dict[int, OtherUse] = {}
    for program in web.programs.values():
        if not _is_ours(program.records, hooks):
            reason = f"{program.name} (id {program.id}) is on another interface, too"
            others[program.id] = OtherUse(reason, is_attached=True)
    for number in bpf.ids(ObjectKind.PROGRAM):
        use = None if number in web.programs else _use(number, web, hooks, images)
        if use is not None:
            others[number] = use
    found: dict[int, OtherUse] = {}
    # Those that are attached come first.
    for number, use in sorted(others.items(), key=lambda item: (not item[1].is_attached, item[0])):
        for array in look([number]).arrays.keys() & web.arrays.keys():
            found.setdefault(array, use)
    return found


def _use(
    number: int, web: Web, hooks: Collection[Hook], images: AbstractSet[int]
) -> OtherUse | None:
    """Return how a program uses one of the arrays; None: it does not, or is the hook's."""
    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
    if descriptor is None:
        return None
    with descriptor:
        info, map_ids = bpf.prog_info(descriptor.fileno())
        if web.arrays.keys().isdisjoint(map_ids):
            return None
        found = records.find_in(map_ids)
        is_the_same = not images.isdisjoint(map_ids)
        if is_the_same and _is_ours(found, hooks):
            return None
    name = info.name.decode("ascii", "backslashreplace")
    return OtherUse(
        f"{name} (id {number}), which is not on this interface, uses it, too",
        is_attached=not _is_ours(found, hooks),
    )


def _is_ours(found: Iterable[StoredRecord], hooks: Collection[Hook]) -> bool:
    return all(each.record.hook in hooks for each in found)
