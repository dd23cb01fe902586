# SPDX-License-Identifier: Apache-2.0
"""What the fields that xdpkit adds to a program's context are to hold, when it is loaded.

They are not the kernel's: the program is given other instructions for those that read them
(:mod:`xdpkit.context`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import UsageError
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.kernel.maps import Map

PORT_NUMBERS = "xdpkit_port_numbers"
"""What the map is called in which a program looks its port up, as xdpkit.h has it."""

_U32, _U64 = 1 << 32, 1 << 64


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
        UsageError: what is given for one is none, or out of range; or the port is given twice.
    """

    port_index: int | None = None
    port_numbers: Map | None = None
    cookie: int = 0

    def __post_init__(self) -> None:
        what = "give a program its context"
        if self.port_index is not None and self.port_numbers is not None:
            raise UsageError(what, cause="its port is either one number or looked up, not both")
        if self.port_index is not None and not _is_number(self.port_index, _U32):
            cause = f"port_index is a number of 32 bits, and not {self.port_index!r}"
            raise UsageError(what, cause=cause)
        if self.port_numbers is not None and not _is_map(self.port_numbers):
            raise UsageError(what, cause=f"port_numbers is a Map, and not {self.port_numbers!r}")
        if not _is_number(self.cookie, _U64):
            cause = f"a cookie is a number of 64 bits, and not {self.cookie!r}"
            raise UsageError(what, cause=cause)


def _is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _is_map(value: object) -> bool:
    from xdpkit.kernel.maps import Map

    return isinstance(value, Map)


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


def check_context(context: Context, what: str) -> None:
    """Check that a program can be given a context.

    Raises:
        UsageError: it is none, or ports cannot be looked up in its map.
    """
    if not isinstance(context, Context):
        raise UsageError(what, cause=f"context= is a Context, and not {context!r}")
    if context.port_numbers is None:
        return
    info = context.port_numbers.info()
    if (info.type, info.key_size, info.value_size) != (MapType.HASH, 4, 4):
        name = f"map {info.name} (id {info.id})" if info.name else f"map {info.id}"
        raise UsageError(
            what,
            cause=f"{name} is no hash with keys and values of 4 bytes, in which ports can be looked"
            " up",
        )
