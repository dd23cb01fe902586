# SPDX-License-Identifier: Apache-2.0
"""What xdpkit writes down with a program that it attaches, as values.

:mod:`xdpkit.hook.wire` says how a record is laid out in bytes, :mod:`xdpkit.hook.records` where it
is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.settings import Counting

if TYPE_CHECKING:
    from xdpkit.negotiation import Negotiation


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a program comes from, and how it was asked for.

    Attributes:
        path: the object file, None where the program was not loaded from one.
        sha256: of the object file, in hexadecimal; None likewise.
        variables: the global variables that were not as the file has them; numbers, bytes, lists
            and dicts, as :attr:`xdpkit.obj.Object.variables` has them.
        policy: "strict", "default" or "report".
        was_forced: whether it was attached although the interface cannot do what it needs.
        xdpkit: the version that wrote this.
    """

    path: str | None
    sha256: str | None
    variables: Mapping[str, object]
    policy: str
    was_forced: bool
    xdpkit: str

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "variables": _plain(self.variables),
            "policy": self.policy,
            "was_forced": self.was_forced,
            "xdpkit": self.xdpkit,
        }

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return an origin from its plain form; keys that are not known are ignored.

        Raises:
            UsageError: it is none.
        """
        from xdpkit.requirements.plain import Document

        given = Document(data, "an origin")
        variables = given.mapping("variables")
        try:
            variables = {name: _from_plain(value) for name, value in variables.items()}
        except ValueError as error:
            raise given.error(f"variables: {error}") from None
        return cls(
            path=given.text_or_none("path"),
            sha256=given.text_or_none("sha256"),
            variables=variables,
            policy=given.text("policy"),
            was_forced=given.flag("was_forced"),
            xdpkit=given.text("xdpkit"),
        )


@dataclass(frozen=True, slots=True)
class PortOf:
    """What a program was told of a port table when it was attached.

    Attributes:
        table: the table's name; "" where an earlier version did not write it down.
        number: the port that its instructions have as ``port_index``; None: it looks its port up
            for each packet, or does not ask for it and uses the table's maps only.
        name: the port's name then, "" without a number.
        table_id: what tells the table from others that had, or will have, its name: the id of its
            map ``numbers``; 0: that was not written down.
    """

    table: str
    number: int | None = None
    name: str = ""
    table_id: int = 0

    def __str__(self) -> str:
        """Return it in words: "port 2 (eth1) of table lan"."""
        table = f"table {self.table}" if self.table else "a table"
        if self.number is None:
            return table
        return f"port {self.number}{f' ({self.name})' if self.name else ''} of {table}"

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "table": self.table or None,
            "number": self.number,
            "name": self.name or None,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """What a later process needs to show, change or undo an attachment.

    Attributes:
        program: the program's name, in full: the kernel keeps 15 characters.
        interface: the interface's name, as it was when this was written.
        ifindex, netns_cookie: which interface it is, see :class:`xdpkit.interfaces.Interface`.
        mode, via: how the program is attached.
        cookie: a number of the caller's.
        attached_at: nanoseconds since 1970, UTC.
        revert_at: when the attachment is to be undone unless it is confirmed, in nanoseconds of
            CLOCK_BOOTTIME; 0: never.
        reverts_to: the id of the program that is then put back; 0: the hook becomes empty.
        origin: where the program comes from.
        negotiation: what came of holding it against the interface, None where it was not.
        queues: the RX queues that it was asked to serve; None: all that no other program serves.
            Which ones it serves now, the root's program array says.
        port: what it was told of a port table, None: nothing.
        logical_id: the id that the program had when it was attached, of which this one is a copy;
            0: it is no copy.
        counting: what the program counts of what it returns, without its author's doing.
        tap: the id of the ring buffer that it reports frames to, likewise; 0: none.
    """

    program: str
    interface: str
    ifindex: int
    netns_cookie: int
    mode: Mode
    via: Via
    cookie: int
    attached_at: int
    revert_at: int
    reverts_to: int
    origin: Origin
    negotiation: Negotiation | None
    queues: tuple[int, ...] | None = None
    port: PortOf | None = None
    logical_id: int = 0
    counting: Counting = Counting.OFF
    tap: int = 0

    @property
    def hook(self) -> tuple[int, int]:
        """Which interface it is: the cookie of its namespace, and its index."""
        return self.netns_cookie, self.ifindex

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        attached_at = datetime.fromtimestamp(self.attached_at // 10**9, UTC)
        return {
            "program": self.program,
            "interface": self.interface,
            "ifindex": self.ifindex,
            "netns_cookie": self.netns_cookie,
            "mode": self.mode.value,
            "via": self.via.value,
            "queues": None if self.queues is None else list(self.queues),
            "port": self.port.to_dict() if self.port else None,
            "logical_id": self.logical_id or None,
            "counting": self.counting.word,
            "cookie": self.cookie,
            "attached_at": attached_at.isoformat(),
            "revert_at": self.revert_at or None,
            "reverts_to": self.reverts_to or None,
            "origin": self.origin.to_dict(),
            "negotiation": self.negotiation.to_dict() if self.negotiation else None,
        }


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was found.

    Attributes:
        record: what this version understands of it.
        generation: how often it was written.
        size: bytes of its fixed structure, as the version that wrote it knows it.
        unknown: whether it has something that this version does not know: then it may be shown,
            but not changed.
        map_id, slot: where it is.
        tail: the fields behind those that this version knows.
        origin_data, negotiation_data: the documents as they were written.
    """

    record: Record
    generation: int
    size: int
    unknown: bool
    map_id: int = 0
    slot: int = 0
    tail: bytes = field(default=b"", repr=False)
    origin_data: bytes = field(default=b"", repr=False)
    negotiation_data: bytes = field(default=b"", repr=False)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            **self.record.to_dict(),
            "generation": self.generation,
            "unknown": self.unknown,
            "map": {"id": self.map_id},
        }


def _plain(value: object) -> object:
    """Return a variable's value as docs/json.md has it: bytes are an object, infinity is text."""
    match value:
        case bytes():
            try:
                text = value.rstrip(b"\0").decode()
            except UnicodeDecodeError:
                text = None
            return {"hex": value.hex(), "text": text}
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return [_plain(item) for item in value]
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
    return value


def _from_plain(value: object) -> object:
    match value:
        # No variable's value is a str, so this is no struct with a member "hex".
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case str():
            return float(value)
        case list():
            return [_from_plain(item) for item in value]
        case dict():
            return {name: _from_plain(item) for name, item in value.items()}
    return value
