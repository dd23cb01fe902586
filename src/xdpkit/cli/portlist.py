# SPDX-License-Identifier: Apache-2.0
"""Port tables as text and as data: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from xdpkit.cli.render import BLANK, Column, counted, printable, table, width
from xdpkit.monitor.model import Group
from xdpkit.monitor.portcounts import (
    ABSENT,
    TRANSMIT_DROPS,
    XMIT_ERRORS,
    PortCounts,
    PortState,
    PortTrouble,
    TableCounts,
    prepared,
)

if TYPE_CHECKING:
    from xdpkit.tables.model import Port

_COLUMNS = (
    Column("port", right=True),
    Column("name"),
    Column("interface"),
    Column("state"),
    Column("egress"),
    Column("prepared"),
    Column("received", right=True),
    Column("sent", right=True),
    Column("lost", right=True),
)

_REASONS = {
    ABSENT: "without interface",
    TRANSMIT_DROPS: "not taken, or dropped by the egress program",
    XMIT_ERRORS: "not taken, as the driver says",
}
"""What is not said as the standard names have it."""


def overview(found: TableCounts) -> Iterator[str]:
    """Yield what there is to show of a table."""
    yield printable(_headline(found))
    if found.ports:
        yield ""
        yield from table(_COLUMNS, map(_row, found.ports), width=width(), indent="  ")
    remarks = [*_remarks(found)]
    if remarks:
        yield ""
        yield from (printable(f"  {each}") for each in remarks)


def _headline(found: TableCounts) -> str:
    parts = [f"{counted(len(found.ports), 'port')}, room for {found.size:,}"]
    if found.is_owned:
        parts.append(
            "the process that it belonged to has ended: the next command that changes ports"
            " removes it, and so does xdpkit clean"
            if found.is_orphan
            else "belongs to a process, and goes with it"
        )
    if found.unknown:
        parts.append("written by a later xdpkit: it is shown, and not changed")
    parts += [
        f"set {name}: {', '.join(map(str, numbers)) or 'no port'}"
        for name, numbers in found.sets.items()
    ]
    return f"{found.name}: {'; '.join(parts)}"


def _row(port: PortCounts) -> list[str]:
    return [
        str(port.number),
        port.name,
        port.where.title if port.where is not None else "",
        port.state.value,
        port.egress or BLANK,
        ", ".join(port.prepared) or BLANK,
        _number(port.received),
        _number(port.sent),
        _number(port.lost) if port.state is not PortState.VACANT or port.lost else "",
    ]


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _remarks(found: TableCounts) -> Iterator[str]:
    for port in found.ports:
        title = f"port {port.number} ({port.name})"
        lost = [f"{each.frames:,} {_reason(each.reason)}" for each in port.errors]
        if port.transmit_drops:
            lost.append(f"{port.transmit_drops:,} {_REASONS[TRANSMIT_DROPS]}")
        if port.xmit_errors:
            lost.append(f"{port.xmit_errors:,} {_REASONS[XMIT_ERRORS]}")
        if lost:
            yield f"{title} lost: {'; '.join(lost)}"
        for trouble in port.troubles:
            yield f"{title}: {told(trouble)}"
    failed = [f"{each.frames:,} {each.reason}" for each in found.broadcast_errors]
    if failed:
        yield f"broadcasts that failed: {'; '.join(failed)}"
    if found.unassigned:
        lost = [
            f"{number}: {counted(frames, 'frame')}" for number, frames in found.unassigned.items()
        ]
        yield f"numbers without a port: {'; '.join(lost)}"


def _reason(reason: str) -> str:
    return _REASONS.get(reason, reason)


def told(trouble: PortTrouble) -> str:
    """Return what is wrong with a port, and what becomes of frames to it."""
    fates = []
    if trouble.counted:
        which = "longer frames" if trouble.kind == "mtu" else "frames"
        fates.append(f"{which} to it are lost (counted as {trouble.counted})")
    if trouble.is_skipped:
        fates.append("a broadcast skips it (not counted)")
    return f"{trouble.text}: {', and '.join(fates)}" if fates else trouble.text


def not_counted(groups: Collection[Group]) -> str | None:
    """Return what is not counted of ports, and what helps; None if all of it is."""
    if Group.ERRORS not in groups:
        return (
            "frames to ports that the kernel loses are not counted; to count them:"
            " xdpkit monitor install --transmit"
        )
    if Group.TRANSMIT not in groups:
        return (
            "frames that an interface does not take are counted by its driver at most; to count"
            " them: xdpkit monitor install --transmit"
        )
    return None


def described(port: Port, table_name: str) -> Iterator[str]:
    """Yield what a port is, one line and those that follow it."""
    interface = port.interface.name if port.interface is not None else "no interface"
    name = f" ({port.name})" if port.name != interface else ""
    yield printable(f"port {port.number}{name} of {table_name}: {interface}")
    if port.egress is not None:
        yield printable(f"  egress program: {port.egress}")
    for each in prepared(port):
        yield printable(f"  prepared: {each}")


def port_to_dict(port: Port) -> dict[str, object]:
    """Return a port as plain data, for JSON."""
    interface = port.interface
    return {
        "number": port.number,
        "name": port.name,
        "interface": interface.name if interface is not None else None,
        "ifindex": interface.ifindex if interface is not None else None,
        "netns": interface.netns if interface is not None else None,
        "egress": port.egress,
        "prepared": [{"what": each.what, "on": each.on.name} for each in port.prepared],
    }
