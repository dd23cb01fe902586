# SPDX-License-Identifier: Apache-2.0
"""What is in a table's maps: which port sends out of which interface, and whose number is whose.

A devmap takes an interface from the network namespace of the thread that sets the entry, and keeps
the device itself, not its index (``dev_map_update_elem()`` in kernel/bpf/devmap.c). The kernel
drops the entry when the interface is deleted or leaves the namespace
(``dev_map_notification()``), and not when it goes down. An index that is read is that of the
device now; of which namespace, the kernel does not say.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.kernel import DevmapValue, Map
from xdpkit.kernel.host import possible_cpus
from xdpkit.syscalls import bpf
from xdpkit.syscalls.fd import HasFileno
from xdpkit.syscalls.netns import entered, has_interface
from xdpkit.tables.frags import frags_of

if TYPE_CHECKING:
    from xdpkit.tables.store import Store

_NUMBER = struct.Struct("=I")
# struct bpf_devmap_val, as it is read: interface index, and id of the program.
_ENTRY = struct.Struct("=II")


def set_entry(
    store: Store,
    devmap: Map,
    number: int,
    ifindex: int,
    netns: str | None,
    egress: HasFileno | int | None = None,
) -> None:
    """Have a port send out of an interface.

    A frame that is on its way meets the old entry or the new one.

    Args:
        store: the table, for errors.
        devmap: its ports, or a set of them.
        number: the port's.
        ifindex: the interface's index in its network namespace.
        netns: that namespace, a name or a path; None: the caller's own.
        egress: a program, or its descriptor, that runs on what is sent.

    Raises:
        UsageError: there is no such port, or no such namespace.
        RequirementUnmet: the egress program and those of the table do not go together.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
        KernelRefused: there is no such interface, or the kernel refused otherwise.
    """
    what = f"have port {number} of table {store.name} send out of interface {ifindex}"
    if not 0 <= number < devmap.max_entries:
        raise UsageError(what, cause=f"it has ports from 0 to {devmap.max_entries - 1}")
    with entered(netns):
        try:
            devmap[number] = DevmapValue(ifindex, egress)
        except KernelRefused as error:
            if error.errno == errno.EINVAL and egress is not None and has_interface(ifindex):
                raise RequirementUnmet(what, cause=_why_not(devmap)) from error
            raise KernelRefused(
                what, errno=error.errno or errno.EIO, cause=error.cause, remedy=error.remedy
            ) from error


def clear_entry(devmap: Map, number: int) -> None:
    """Have a port send nowhere, if it does not already."""
    devmap.delete_many([number])


def clear(devmap: Map) -> None:
    """Have no port send anywhere.

    Before its pin goes: an egress program may use the map that it is in, and neither would ever go.
    """
    devmap.clear()


def entries(devmap: Map) -> dict[int, tuple[int, int]]:
    """Return interface index and id of the egress program (0: none) of the ports that have one."""
    # The kernel has no batches for this type (ENOTSUPP), and a table may have many ports.
    devmap_fd, found = devmap.fileno(), {}
    for number in range(devmap.max_entries):
        value = bpf.map_lookup(devmap_fd, _NUMBER.pack(number), _ENTRY.size)
        if value is not None:
            found[number] = _ENTRY.unpack(value)
    return found


def clear_count(counts: Map, number: int) -> None:
    """Have nothing be counted for a port so far."""
    counts[number] = [bytes(counts.value_size)] * possible_cpus()


def set_number(numbers: Map, ifindex: int, number: int) -> None:
    """Have an interface's index stand for a port.

    Raises:
        KernelRefused: there is no room for one more (E2BIG).
    """
    numbers[_NUMBER.pack(ifindex)] = _NUMBER.pack(number)


def clear_number(numbers: Map, ifindex: int) -> bool:
    """Have an interface's index stand for no port; return whether it did before."""
    return numbers.delete_many([_NUMBER.pack(ifindex)]) > 0


def port_numbers(numbers: Map) -> dict[int, int]:
    """Return the port's number by the interface's index."""
    return {_NUMBER.unpack(key)[0]: _NUMBER.unpack(value)[0] for key, value in numbers.items()}


def _why_not(devmap: Map) -> str:
    frags = frags_of(devmap)
    kind = "an egress program is one for devmaps (SEC xdp/devmap)"
    if frags is None:
        return kind
    return (
        f"{kind}, and the first program that used the table has decided that all of them take"
        f" {'' if frags else 'no '}frames in fragments (SEC xdp{'.frags' if frags else ''}/devmap)"
    )
