# SPDX-License-Identifier: Apache-2.0
"""Giving a program what it reads beyond the kernel's context, as it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xdpkit.errors import KernelRefused, RequirementUnmet
from xdpkit.kernel import patch
from xdpkit.kernel.context import Context, Given
from xdpkit.kernel.kfuncs import throw_in
from xdpkit.kernel.maps import Map
from xdpkit.kernel.progload import load_program
from xdpkit.uapi.bpf import AttachType, ProgFlags, ProgType

if TYPE_CHECKING:
    from xdpkit import rewrite
    from xdpkit.btf import Btf
    from xdpkit.context import Provided
    from xdpkit.obj import LinkedProgram, ProgramSpec
    from xdpkit.syscalls.bpf import NewProgram

_PORT_INDEX, _COOKIE = "port_index", "cookie"
_MAX_MAPS = 64  # MAX_USED_MAPS, include/linux/bpf_verifier.h
# The verifier's log has how much stack each function uses.
_STATISTICS = 4


@dataclass(frozen=True, slots=True)
class Extended:
    """A program that got what it reads in the fields that xdpkit adds to its context.

    Attributes:
        new: what ``BPF_PROG_LOAD`` takes for it.
        given: what it got.
        numbers: the map in which it looks its port up, None: it does not.
    """

    new: NewProgram
    given: Given
    numbers: Map | None


def extended(
    spec: ProgramSpec,
    linked: LinkedProgram,
    new: NewProgram,
    context: Context,
    *,
    types: Btf | None,
    numbers: Callable[[], Map],
) -> Extended | None:
    """Return a program that has what it reads beyond the kernel's context; None if it reads none.

    Args:
        spec: the program. linked: the same, linked.
        new: what it would be loaded as if it read none.
        context: what the fields are to hold.
        types: the object's BTF, as the kernel is given it.
        numbers: opens ``context.port_numbers`` for the program.

    Raises:
        RequirementUnmet: it cannot be provided, and why.
        MissingPrivilege: loading programs takes capabilities.
    """
    from xdpkit.context import may_read

    if spec.type is not ProgType.XDP or not may_read(bytes(new.code)):
        return None
    from xdpkit import rewrite

    providing = _Providing(spec, linked, new, context, types)
    found = providing.provided()
    if not found.fields:
        return None
    made = bytearray(found.body.code)
    used = None
    if found.map_slots:
        used = numbers()
        others = rewrite.maps_of(providing.body) - {used.fileno()}
        if len(others) >= _MAX_MAPS:
            raise RequirementUnmet(
                f"load program {spec.name}",
                cause=f"it uses {_MAX_MAPS} maps, which is the most that the kernel allows, and the"
                " one in which it is to look its port up is one more",
            )
        patch.set_map(made, found.map_slots, used.fileno())
    given = Given(
        found.fields,
        port_index=context.port_index if _PORT_INDEX in found.fields else None,
        numbers=0 if used is None else used.id,
        cookie=context.cookie if _COOKIE in found.fields else 0,
    )
    return Extended(_loading(new, replace(found.body, code=bytes(made))), given, used)


class _Providing:
    """One program that is to be provided with what it reads."""

    def __init__(
        self,
        spec: ProgramSpec,
        linked: LinkedProgram,
        new: NewProgram,
        context: Context,
        types: Btf | None,
    ) -> None:
        from xdpkit import rewrite
        from xdpkit.analysis.objects import kfuncs_of

        self.body = rewrite.Body(bytes(new.code), new.func_info, new.line_info)
        self._spec = spec
        self._new = new
        self._looked_up = _interface_index(spec) if context.port_numbers is not None else None
        self._about: Mapping[str, Any] = {
            "constants": _constants(context),
            "types": types,
            "throw": throw_in(self.body.code),
            "kfuncs": kfuncs_of(spec.object, linked),
            "name": spec.name,
        }

    def provided(self) -> Provided:
        try:
            return self._provided(None)
        except RequirementUnmet:
            # The verifier knows better how much stack it uses.
            stack = self._stack()
            if stack is None:
                raise
        return self._provided(stack)

    def _provided(self, stack: tuple[int, ...] | None) -> Provided:
        from xdpkit.context import provide

        return provide(
            self.body,
            looked_up=self._looked_up,
            frags=bool(self._spec.flags & ProgFlags.XDP_HAS_FRAGS),
            stack=stack,
            **self._about,
        )

    def _stack(self) -> tuple[int, ...] | None:
        """Return how much stack each function uses, as the verifier says, if it takes them."""
        from xdpkit import rewrite
        from xdpkit.context import stand_in

        new = _loading(self._new, stand_in(self.body, **self._about))
        what = f"learn how much stack {self._spec.name} uses"
        try:
            fd, log = load_program(new, what=what, log_level=_STATISTICS, notes=lambda text: None)
        except KernelRefused:
            return None
        fd.close()
        return rewrite.stack_in_log(log)


def _loading(new: NewProgram, body: rewrite.Body) -> NewProgram:
    return replace(new, code=body.code, func_info=body.func_info, line_info=body.line_info)


def _constants(context: Context) -> dict[str, int]:
    constants = {_COOKIE: context.cookie}
    if context.port_index is not None:
        constants[_PORT_INDEX] = context.port_index
    return constants


def _interface_index(spec: ProgramSpec) -> str:
    """Return the field of the kernel's with the interface whose port the program serves."""
    # What runs in a devmap serves the port by which the frame leaves.
    is_egress = spec.attach_type == AttachType.XDP_DEVMAP
    return "egress_ifindex" if is_egress else "ingress_ifindex"
