# SPDX-License-Identifier: Apache-2.0
"""A port table with something in every field, and tables as other versions write them."""

from __future__ import annotations

from collections.abc import Callable

from xdpkit.tables import wire
from xdpkit.tables.model import Identity, Port, PortSet, Preparation, Table
from xdpkit.uapi import sized

PEER = Identity("veth0", 4, 1 << 40, "/proc/77/ns/net", b"\x02\0\0\0\0\x01", "veth")
IDENTITY = Identity("eth\udcff0", 3, 4096, "left", b"\x02\0\0\0\0\0", "veth")
HARDWARE = Identity("enp3s0", 2, 1, None, b"", "")

TABLE = Table(
    name="lan",
    size=16,
    ports=(
        Port(0, "eth0", HARDWARE),
        Port(
            3,
            "Küche",
            IDENTITY,
            egress="retag",
            prepared=(Preparation("gro", PEER, "off"), Preparation("program", PEER, "")),
            prepare="program",
            home=HARDWARE,
        ),
        Port(15, "gone", None, egress="", home=IDENTITY),
    ),
    sets=(PortSet("empty", frozenset()), PortSet("guests", frozenset({15, 3}))),
    owner=True,
    xdpkit="9.9.9",
)

PARTS = ("name", "xdpkit", "ports", "sets", "members", "preparations", "texts", "homes")


def changed(
    table: Table = TABLE,
    *,
    numbers: dict[str, int] | None = None,
    parts: dict[str, Callable[[bytes], bytes]] | None = None,
    tail: bytes = b"",
) -> bytes:
    """Return a table as bytes, with fields and parts that were changed and a right checksum."""
    found = sized.unpack("port table", wire.TABLE_MAGIC, wire.Layout, wire.encode(table))
    found.fields.crc = 0
    change = parts or {}
    contents = {name: change.get(name, bytes)(found.part(name)) for name in PARTS}
    for name in PARTS:
        setattr(found.fields, name, sized.Part())
    return sized.pack(found.fields, numbers or {}, contents, tail)
