# SPDX-License-Identifier: Apache-2.0
"""Programs that use a table: its maps under the names that they have for them."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.tables.frags import frags_of
from xdpkit.tables.store import Store
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags

if TYPE_CHECKING:
    from xdpkit.kernel import Context, Map, Program
    from xdpkit.obj import ProgramSpec

_SET = "xdpkit_set_"


def maps_for(store: Store, spec: ProgramSpec) -> dict[str, Map]:
    """Return the maps of a table that a program's object has, by name.

    Raises:
        UsageError: it has a set that the table has not.
    """
    found = {name: each for name, each in store.maps().items() if name in spec.object.maps}
    for name in spec.object.maps:
        if name.startswith(_SET) and name not in found:
            wanted = name.removeprefix(_SET)
            raise UsageError(
                f"load {spec.name} for port table {store.name}",
                cause=f"it sends to the ports of set {wanted}, and the table has no such set",
                remedy=f"make it: xdpkit ports set {store.name} {wanted} PORT...",
            )
    return found


def load(
    store: Store, spec: ProgramSpec, maps: Mapping[str, Map], *, cookie: int, log_level: int
) -> Program:
    """Load a program that looks its port up; see :meth:`xdpkit.PortTable.load`."""
    from xdpkit.kernel.context import Context

    context = Context(port_numbers=store.numbers, cookie=cookie)
    return load_with(store, spec, context, maps, log_level=log_level)


def load_with(
    store: Store,
    spec: ProgramSpec,
    context: Context,
    maps: Mapping[str, Map] = MappingProxyType({}),
    *,
    log_level: int = 0,
) -> Program:
    """Load a program with a table's maps, and others; errors are those of :func:`xdpkit.load`.

    Raises:
        UsageError: it has a set that the table has not.
        RequirementUnmet: it and others that use the table do not agree on fragments.
    """
    from xdpkit import kernel

    used = maps_for(store, spec)
    try:
        return kernel.load(
            spec,
            maps={**used, **maps},
            pin_root=store.pin_root,
            log_level=log_level,
            context=context,
        )
    except KernelRefused as error:
        if error.errno == errno.EINVAL:
            devmaps = [each for each in used.values() if each.type == MapType.DEVMAP]
            require_same_frags(store.name, devmaps, spec, error.what)
        raise


def takes_frags(devmaps: Iterable[Map]) -> bool:
    """Return whether programs that use a table's device maps take frames in fragments."""
    return any(frags_of(each) for each in devmaps)


def require_same_frags(table: str, devmaps: Iterable[Map], spec: ProgramSpec, what: str) -> None:
    """Refuse a program that the kernel would refuse without a word; see :mod:`xdpkit.tables.frags`.

    Args:
        table: the table's name, for errors.
        devmaps: its device maps that the program uses or gets into; each has its own first program.
        spec: the program.
        what: what is being tried, for errors.

    Raises:
        RequirementUnmet: it takes frames in fragments, and others of the table do not; or the other
            way round.
    """
    own = bool(spec.flags & ProgFlags.XDP_HAS_FRAGS)
    wanted = {frags_of(each) for each in devmaps}
    if (not own) not in wanted:
        return
    does = ("does not take frames in fragments", "takes frames in fragments")
    section = "xdp" if own else "xdp.frags"
    if spec.attach_type == AttachType.XDP_DEVMAP:
        section += "/devmap"
    raise RequirementUnmet(
        what,
        cause=f"{spec.name} {does[own]}, and the first program that used table {table}"
        f" {does[not own]}: the kernel wants all of them to agree",
        remedy=f'SEC("{section}")',
    )
