# SPDX-License-Identifier: Apache-2.0
"""Programs that an attached program reaches through its maps.

A program put into a program array, devmap or cpumap is attached too, and is negotiated too. The
kernel checks a member's type only. So what it returns there is held against where it runs: a
tail-called program runs on the array owner's interface, a devmap's or cpumap's in the kernel's own
code, which takes fewer actions than a driver does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.errors import KernelRefused, MissingPrivilege, UsageError
from xdpkit.hook.mode import Mode
from xdpkit.interfaces import Interface, resolve
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.btf import Btf
    from xdpkit.kernel import Map, Program
    from xdpkit.negotiation import Policy
    from xdpkit.obj import ProgramSpec

# dev_map_bpf_prog_run() in kernel/bpf/devmap.c, cpu_map_bpf_prog_run_xdp() in kernel/bpf/cpumap.c.
_REFUSED_IN = {
    MapType.DEVMAP: ("action-tx", "action-redirect"),
    MapType.DEVMAP_HASH: ("action-tx", "action-redirect"),
    MapType.CPUMAP: ("action-tx",),
}
# A map with one of these in its values loses it with its last descriptor or pin.
_TIMERS = (b"\0bpf_timer\0", b"\0bpf_wq\0")


def maps_that_need_a_holder(program: Program) -> list[Map]:
    """Return the maps whose contents the kernel drops when no process and no pin holds them.

    prog_array_map_clear() in kernel/bpf/arraymap.c, bpf_map_free_timers_wq() in kernel/bpf.
    """
    spec = program.spec
    return [
        found
        for found in (*program.maps.values(), *program.held)
        if found.type == MapType.PROG_ARRAY
        or (_names_timers(spec.object.btf) if spec is not None else _may_have_timers(found))
    ]


def needs_holder(spec: ProgramSpec) -> bool:
    """Whether a program that is still to be loaded will have such maps."""
    from xdpkit.kernel.plan import plan

    wanted = plan(spec.object, (spec,)).maps
    return any(found.type == MapType.PROG_ARRAY for found in wanted) or (
        bool(wanted) and _names_timers(spec.object.btf)
    )


def _names_timers(btf: Btf | None) -> bool:
    return btf is not None and any(name in btf.raw for name in _TIMERS)


def _may_have_timers(found: Map) -> bool:
    """Whether a map's types name timers; of a map that another process made."""
    number = found.info().btf_id
    if not number:
        return False
    descriptor = bpf.fd_by_id(ObjectKind.BTF, number)
    if descriptor is None:
        return False
    with descriptor:
        data = bpf.btf_data(descriptor.fileno())
    return any(name in data for name in _TIMERS)


@contextmanager
def negotiate_members(
    maps: Mapping[str, Map],
    interface: Interface,
    mode: Mode,
    policy: Policy | None,
    *,
    ports: str | None = None,
    pin_root: str = DEFAULT_ROOT,
    cookie: int | None = None,
) -> Iterator[None]:
    """Meanwhile, hold each program put into one of these maps against where it will run.

    Putting it there raises :class:`~xdpkit.errors.RequirementUnmet` where it is refused, and
    :class:`~xdpkit.errors.UsageError` where a program array would run one that was loaded with
    another cookie (None: any will do). A map of a program that is on several hooks has to suit all
    of them.
    """
    added = []
    for name, found in maps.items():
        if found.type == MapType.PROG_ARRAY or found.type in _REFUSED_IN:
            entry = _Entry(found, name, interface, mode, policy, ports, pin_root, cookie)
            found.vets.append(entry.vet)
            added.append((found, entry.vet))
    try:
        yield
    finally:
        for found, vet in added:
            found.vets.remove(vet)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a map, for a program; the arguments are those of :func:`negotiate_members`."""

    target: Map
    name: str
    interface: Interface
    mode: Mode
    policy: Policy | None
    ports: str | None
    pin_root: str
    cookie: int | None

    def vet(self, value: object) -> None:
        """Refuse a value with a program that does not fit."""
        from xdpkit.kernel import Program

        member = getattr(value, "program", value)
        # A bare number is a program's descriptor here, and an interface or a queue's length
        # elsewhere.
        names_program = self.target.type == MapType.PROG_ARRAY
        if isinstance(member, Program):
            self._hold(member)
        elif isinstance(member, int) and member and (names_program or member is not value):
            with Program(Fd.duplicate(member)) as opened:
                self._hold(opened)

    def _hold(self, program: Program) -> None:
        from xdpkit.hook.check import look
        from xdpkit.hook.given import require_cookie
        from xdpkit.negotiation import refusal

        what = f"put {program.name} into {self.name} of {self.interface.name}"
        place: Device | int = self.interface.index
        netns = self.interface.netns
        is_tail_called = self.target.type == MapType.PROG_ARRAY
        if not is_tail_called:
            place, netns = _kernel_code(MapType(self.target.type)), None
        elif not _is_there(self.interface):
            # The program runs nowhere.
            return
        result = look(
            program,
            place,
            mode=self.mode,
            policy=self.policy,
            targets=(),
            maps=None,
            netns=netns,
            by_link=True,
            table=self.ports,
            pin_root=self.pin_root,
        ).negotiation
        if not result.is_allowed:
            raise refusal(result, what)
        if is_tail_called:
            if self.cookie is not None:
                require_cookie(program, self.cookie, what, remedy="load it with that cookie")
            _keep_image(program)


def _is_there(interface: Interface) -> bool:
    try:
        return resolve(interface.index, netns=interface.netns).netns_cookie == (
            interface.netns_cookie
        )
    except UsageError:
        return False


def _keep_image(program: Program) -> None:
    """Keep with a program what it takes to make a copy of it that counts, where that is known."""
    from xdpkit.hook import records

    if program.was_loaded_here:
        # Without it the program is not counted, which is said where it matters.
        with suppress(UsageError, MissingPrivilege, KernelRefused):
            records.keep_image(program)


def _kernel_code(map_type: MapType) -> Device:
    kind = map_type.name.lower()
    evidence = f"a {kind} entry drops what its program returns so"
    return Device(
        name=f"{kind} entry",
        kind=kind,
        findings={
            capability: Finding(capability, Answer.NO, evidence)
            for capability in _REFUSED_IN[map_type]
        },
        source="kernel/bpf",
        otherwise=Answer.YES,
    )
