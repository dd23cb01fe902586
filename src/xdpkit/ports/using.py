# SPDX-License-Identifier: Apache-2.0
"""Programs that use a table: its maps under the names that they have for them."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.tables.frags import frags_of
from xdpkit.tables.store import Store
from xdpkit.uapi.bpf import AttachType, ProgFlags

if TYPE_CHECKING:
    from xdpkit.kernel import Map, Program
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
    from xdpkit import kernel
    from xdpkit.kernel.context import Context

    used = maps_for(store, spec)
    try:
        return kernel.load(
            spec,
            maps={**used, **maps},
            pin_root=store.pin_root,
            log_level=log_level,
            context=Context(port_numbers=store.numbers, cookie=cookie),
        )
    except KernelRefused as error:
        if error.errno == errno.EINVAL:
            require_same_frags(store, spec, error.what)
        raise


def require_same_frags(store: Store, spec: ProgramSpec, what: str) -> None:
    """Refuse a program that the kernel would refuse without a word; see :mod:`xdpkit.tables.frags`.

    Raises:
        RequirementUnmet: it takes frames in fragments, and others of the table do not; or the other
            way round.
    """
    wanted, own = frags_of(store.ports), bool(spec.flags & ProgFlags.XDP_HAS_FRAGS)
    if wanted is None or wanted == own:
        return
    does = ("does not take frames in fragments", "takes frames in fragments")
    section = "xdp.frags" if wanted else "xdp"
    if spec.attach_type == AttachType.XDP_DEVMAP:
        section += "/devmap"
    raise RequirementUnmet(
        what,
        cause=f"{spec.name} {does[own]}, and the first program that used table {store.name}"
        f" {does[wanted]}: the kernel wants all of them to agree",
        remedy=f'SEC("{section}")',
    )
