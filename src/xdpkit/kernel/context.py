# SPDX-License-Identifier: Apache-2.0
"""What the fields that xdpkit adds to a program's context are to hold, when it is loaded.

They are not the kernel's: the program is given other instructions for those that read them
(:mod:`xdpkit.context`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.kernel import patch
from xdpkit.kernel.kfuncs import throw_in
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType

if TYPE_CHECKING:
    from xdpkit import rewrite
    from xdpkit.btf import Btf
    from xdpkit.context import Provided
    from xdpkit.kernel.maps import Map
    from xdpkit.obj import LinkedProgram, ProgramSpec

PORT_NUMBERS = "xdpkit_port_numbers"
"""What the map is called in which a program looks its port up, as xdpkit.h has it."""

_PORT_INDEX, _COOKIE = "port_index", "cookie"
_U32, _U64 = 1 << 32, 1 << 64
_MAX_MAPS = 64  # MAX_USED_MAPS, include/linux/bpf_verifier.h


@dataclass(frozen=True, slots=True)
class Context:
    """What a program reads in the fields that xdpkit adds to its context.

    Attributes:
        port_index: what ``ctx->port_index`` is, for a program that serves one port.
        port_numbers: the map in which a program that serves several ports looks its port up, by the
            index of the interface: a hash with keys and values of 4 bytes. What has no entry is
            ``XDPKIT_NO_PORT``. With neither, a program that reads the field is refused.
        cookie: what ``ctx->cookie`` is.

    Raises:
        UsageError: a number is out of range, or the port is given twice.
    """

    port_index: int | None = None
    port_numbers: Map | None = None
    cookie: int = 0

    def __post_init__(self) -> None:
        what = "give a program its context"
        if self.port_index is not None and self.port_numbers is not None:
            raise UsageError(what, cause="its port is either one number or looked up, not both")
        if self.port_index is not None and not 0 <= self.port_index < _U32:
            raise UsageError(what, cause=f"port_index has 32 bits, and is not {self.port_index}")
        if not 0 <= self.cookie < _U64:
            raise UsageError(what, cause=f"a cookie has 64 bits, and is not {self.cookie}")


@dataclass(frozen=True, slots=True)
class Given:
    """What a loaded program reads in the fields that xdpkit adds to its context.

    Attributes:
        fields: those that it reads, at least one.
        port_index: what it reads there; None: it looks it up, or does not read it.
        numbers: id of the map in which it looks its port up, 0: it does not.
        cookie: what it reads there; 0 if it does not.
    """

    fields: tuple[str, ...]
    port_index: int | None = None
    numbers: int = 0
    cookie: int = 0


@dataclass(frozen=True, slots=True)
class Extended:
    """A program that got what it reads in the fields that xdpkit adds to its context.

    Attributes:
        code, func_info, line_info: as ``BPF_PROG_LOAD`` takes them.
        given: what it got.
        numbers: the map in which it looks its port up, None: it does not.
    """

    code: bytearray
    func_info: bytes
    line_info: bytes
    given: Given
    numbers: Map | None


def check_numbers(context: Context, what: str) -> None:
    """Check that ports can be looked up in the map that is given for it.

    Raises:
        UsageError: they cannot.
    """
    if context.port_numbers is None:
        return
    info = context.port_numbers.info()
    if (info.type, info.key_size, info.value_size) != (MapType.HASH, 4, 4):
        raise UsageError(
            what,
            cause=f"map {info.name} (id {info.id}) is no hash with keys and values of 4 bytes, in"
            " which ports can be looked up",
        )


def extended(
    spec: ProgramSpec,
    linked: LinkedProgram,
    code: bytearray,
    context: Context,
    *,
    types: Btf | None,
    numbers: Callable[[], Map],
) -> Extended | None:
    """Return a program that has what it reads beyond the kernel's context; None if it reads none.

    Args:
        spec: the program. linked: its records about functions and lines.
        code: its instructions, complete.
        context: what the fields are to hold.
        types: the object's BTF, as the kernel is given it.
        numbers: opens ``context.port_numbers`` for the program.

    Raises:
        RequirementUnmet: it cannot be provided, and why.
    """
    from xdpkit.context import may_read

    if spec.type is not ProgType.XDP or not may_read(bytes(code)):
        return None
    from xdpkit import rewrite

    body = rewrite.Body(bytes(code), linked.func_info, linked.line_info)
    found = _provided(spec, body, context, types)
    if not found.fields:
        return None
    made = bytearray(found.body.code)
    used = None
    if found.map_slots:
        used = numbers()
        others = rewrite.maps_of(body) - {used.fileno()}
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
    return Extended(made, found.body.func_info, found.body.line_info, given, used)


def _provided(
    spec: ProgramSpec, body: rewrite.Body, context: Context, types: Btf | None
) -> Provided:
    from xdpkit.context import provide

    return provide(
        body,
        constants=_constants(context),
        looked_up=_interface_index(spec) if context.port_numbers is not None else None,
        frags=bool(spec.flags & ProgFlags.XDP_HAS_FRAGS),
        types=types,
        throw=throw_in(body.code),
        name=spec.name,
    )


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
