# SPDX-License-Identifier: Apache-2.0
"""The root: the program on a hook that runs another one for each RX queue.

Its program array ``xdpkit_queues`` has a slot for each RX queue, and a last one for the global
program. What is in there is the truth about which program serves which queue. Queues without a
program are served by the global one; where there is none either, packets pass and are counted in
``xdpkit_unserved``. See :func:`xdpkit.rewrite.root`.

A program array loses its members when nothing holds it any more, even while a program uses it. So
it is pinned before its root goes on the hook, and unpinned after it has left.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import HookBusy, KernelRefused, RequirementUnmet
from xdpkit.hook.scope import MAX_QUEUES
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap, ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType

if TYPE_CHECKING:
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Program
    from xdpkit.kernel.image import Image

ROOT = "xdpkit_root"
QUEUES_MAP = "xdpkit_queues"
UNSERVED_MAP = "xdpkit_unserved"

_INDEX = struct.Struct("=I")


class NotAlike(RequirementUnmet):
    """A program cannot be put into a root's program array."""


@dataclass(frozen=True, slots=True)
class Root:
    """A root in the kernel.

    Attributes:
        program_id: the program.
        array_id: its program array. queues: how many RX queues it tells apart.
        unserved_id: the map that counts packets for which there is no program.
    """

    program_id: int
    array_id: int
    queues: int
    unserved_id: int

    def slot_of(self, queue: int | None) -> int:
        """Return the slot of a queue's program, or of the global one."""
        return self.queues if queue is None else queue


@dataclass(frozen=True, slots=True)
class Kind:
    """What the members of one program array have to have in common, as the root has it, too.

    Attributes:
        attach_type: the expected attach type that they were loaded with.
        frags: whether they take packets in fragments.
    """

    attach_type: int
    frags: bool

    @classmethod
    def of(cls, image: Image) -> Kind:
        return cls(image.attach_type, bool(image.flags & ProgFlags.XDP_HAS_FRAGS))


KINDS = tuple(
    Kind(attach_type, frags) for attach_type in (AttachType.XDP, 0) for frags in (False, True)
)
"""All that there are, the most usual first."""


def size_for(interface: Interface) -> int:
    """Return how many RX queues of an interface a root tells apart: all that it can ever have."""
    return min(interface.rx_queues, MAX_QUEUES)


def find(program_id: int, name: str | None, map_ids: Mapping[int, str]) -> Root | None:
    """Return the root that a program is, None if it is none.

    Args:
        program_id: the program. name: as the kernel has it.
        map_ids: the names of its maps, by id.
    """
    if name != ROOT:
        return None
    arrays = [number for number, used in map_ids.items() if used == QUEUES_MAP]
    counters = [number for number, used in map_ids.items() if used == UNSERVED_MAP]
    if len(arrays) != 1 or len(counters) != 1:
        return None
    descriptor = bpf.fd_by_id(ObjectKind.MAP, arrays[0])
    if descriptor is None:
        return None
    with descriptor:
        info = bpf.map_info(descriptor.fileno())
    if info.type != MapType.PROG_ARRAY:
        return None
    return Root(program_id, arrays[0], info.max_entries - 1, counters[0])


def open_array(root: Root, what: str) -> Fd:
    """Open a root's program array.

    Raises:
        HookBusy: it has gone, and the root with it.
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    descriptor = bpf.fd_by_id(ObjectKind.MAP, root.array_id)
    if descriptor is None:
        raise HookBusy(
            what,
            cause="the root that was seen there is not there any more: another process changed the"
            " hook meanwhile",
            remedy="try it again",
        )
    return descriptor


def member_in(array: Fd, root: Root, queue: int | None) -> int | None:
    """Return the id of the program in the slot of a queue, None if that is empty."""
    value = bpf.map_lookup(array.fileno(), _INDEX.pack(root.slot_of(queue)), _INDEX.size)
    return _INDEX.unpack(value)[0] if value is not None else None


def members_in(array: Fd, root: Root) -> dict[int | None, int]:
    """Return the ids of all members, by queue; None: the global one, which comes last."""
    found: dict[int | None, int] = {}
    for queue in (*range(root.queues), None):
        member = member_in(array, root, queue)
        if member is not None:
            found[queue] = member
    return found


def members_of(root: Root, what: str) -> dict[int | None, int]:
    """Return the ids of a root's members, as :func:`members_in` does.

    Raises:
        HookBusy: the root has gone. MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    with open_array(root, what) as array:
        return members_in(array, root)


def put(array: Fd, root: Root, queue: int | None, program: Program | None, what: str) -> None:
    """Put a program into the slot of a queue, or empty the slot. One step.

    Raises:
        NotAlike: the kernel does not take the program beside those that are there.
        KernelRefused: it refused otherwise.
    """
    key = _INDEX.pack(root.slot_of(queue))
    if program is None:
        bpf.map_delete(array.fileno(), key)
        return
    with _understood(program, what):
        bpf.map_update(array.fileno(), key, _INDEX.pack(program.fileno()))


@contextlib.contextmanager
def _understood(program: Program, what: str) -> Iterator[None]:
    try:
        yield
    except KernelRefused as error:
        if error.errno != errno.EINVAL:
            raise
        # bpf_prog_map_compatible() in kernel/bpf/core.c.
        raise NotAlike(
            what,
            cause=f"the kernel does not take {program.name} beside the programs of the other"
            " queues: all have to be loaded alike (with or without support for fragments, and for"
            " the same kind of attachment), and none may be bound to a device",
        ) from error


def kind_of(root: Root) -> Kind | None:
    """Return what a root's members have in common, None if that was not written down."""
    from xdpkit.hook import records

    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, root.program_id)
    if descriptor is None:
        return None
    with descriptor:
        image = records.image_of(descriptor.fileno())
    return Kind.of(image) if image is not None else None


def load(queues: int, kind: Kind, unserved_id: int | None = None) -> tuple[Program, Root]:
    """Load a root, with an empty program array; the caller closes the program.

    Args:
        queues: how many RX queues it is to tell apart.
        kind: what its members have in common.
        unserved_id: the map that counts for the root before it, and goes on counting.

    Raises:
        KernelRefused: the kernel refused.
    """
    from xdpkit import rewrite
    from xdpkit.kernel import patch
    from xdpkit.kernel.image import Image, MapReference
    from xdpkit.kernel.reload import load_image

    built = rewrite.root(
        {queue: queue for queue in range(queues)}, queues, entries=queues, frags=kind.frags
    )
    with ExitStack() as temporary:
        array = temporary.enter_context(_new_array(queues + 1))
        unserved = temporary.enter_context(_unserved(queues, unserved_id))
        array_id, counters_id = (int(bpf.map_info(each.fileno()).id) for each in (array, unserved))
        code = bytearray(built.body.code)
        patch.set_map(code, built.array_slots, array_id)
        patch.set_map(code, built.counter_slots, counters_id)
        program = load_image(
            Image(
                name=ROOT,
                type=ProgType.XDP,
                attach_type=kind.attach_type,
                flags=ProgFlags.XDP_HAS_FRAGS if kind.frags else 0,
                license="Apache-2.0",
                kern_version=0,
                code=bytes(code),
                maps=(
                    MapReference(array_id, QUEUES_MAP),
                    MapReference(counters_id, UNSERVED_MAP),
                ),
            )
        )
    return program, Root(program.id, array_id, queues, counters_id)


def _new_array(slots: int) -> Fd:
    new = NewMap(MapType.PROG_ARRAY, _INDEX.size, _INDEX.size, slots, name=QUEUES_MAP)
    return bpf.map_create(new, what=f"create map {QUEUES_MAP}")


def _unserved(queues: int, number: int | None) -> Fd:
    """Open the map of counters that is to be used again, or make one."""
    from xdpkit.rewrite import NO_PROGRAM_SIZE

    if number is not None:
        descriptor = bpf.fd_by_id(ObjectKind.MAP, number)
        if descriptor is not None:
            if bpf.map_info(descriptor.fileno()).max_entries == queues:
                return descriptor
            descriptor.close()
    new = NewMap(MapType.PERCPU_ARRAY, _INDEX.size, NO_PROGRAM_SIZE, queues, name=UNSERVED_MAP)
    return bpf.map_create(new, what=f"create map {UNSERVED_MAP}")
