# SPDX-License-Identifier: Apache-2.0
"""All about the programs on one interface's hook, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xdpkit.cli.naming import full_name
from xdpkit.cli.queues import served
from xdpkit.cli.render import Column, counted, printable, table, width
from xdpkit.cli.status import holder
from xdpkit.cli.undoing import undoing
from xdpkit.hook.state import LEAVING, command_for

if TYPE_CHECKING:
    from xdpkit.hook import AttachedProgram, HookStatus, ProgramSummary, StoredRecord
    from xdpkit.hook.dispatcher import Component, Dispatcher
    from xdpkit.negotiation import Negotiation

# Of a file's SHA-256: enough to see that it is another file.
_DIGITS = 12


def details(hook: HookStatus, pin_root: str) -> Iterator[str]:
    """Yield the lines that show what is on a hook."""
    name = printable(hook.interface.name)
    if not hook.attached:
        yield f"{name}: no program"
    for found in hook.attached:
        if found.root is None:
            yield f"{name}: {found.mode.value} mode"
            yield from _lines(_facts(found))
        else:
            yield f"{name}: {found.mode.value} mode, by RX queue"
            yield from _lines(_facts_of_root(found))
        pending = _pending(hook, found, pin_root)
        if pending is not None:
            yield printable(f"  {pending}")
        if found.dispatcher is not None:
            yield from _components(found.dispatcher)
        for member, queues in served(found.members):
            yield ""
            yield from _lines(_facts_of_member(member, queues))


def _lines(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    for key, value in facts:
        if value:
            yield f"  {key:<9}{printable(value)}"


def _facts(found: AttachedProgram) -> Iterator[tuple[str, str]]:
    yield "program", _name(found)
    yield from _loaded(found.program)
    yield from _held(found)
    yield from _brought(found)


def _facts_of_root(found: AttachedProgram) -> Iterator[tuple[str, str]]:
    yield "root", _name(found)
    yield from _loaded(found.program)
    yield from _held(found)
    if not found.members and found.program.name is not None:
        yield "serves", "no queue: all packets pass"


def _facts_of_member(found: AttachedProgram, queues: str) -> Iterator[tuple[str, str]]:
    yield "queues", queues
    yield "program", _name(found)
    yield from _loaded(found.program)
    yield from _brought(found)


def _name(found: AttachedProgram) -> str:
    return f"{full_name(found) or ''} id {found.program.id}".strip()


def _loaded(program: ProgramSummary) -> Iterator[tuple[str, str]]:
    yield "tag", program.tag or ""
    if program.loaded_at is not None:
        yield "loaded", _moment(program.loaded_at)
    if program.jited is not None:
        yield "runs as", "machine code" if program.jited else "interpreted instructions"


def _held(found: AttachedProgram) -> Iterator[tuple[str, str]]:
    """Yield what keeps it on the hook."""
    yield "by", holder(found)
    yield "pinned", found.pinned or ""
    yield "held by", ", ".join(f"{process.name} (pid {process.pid})" for process in found.holders)


def _brought(found: AttachedProgram) -> Iterator[tuple[str, str]]:
    """Yield what came with it: its maps, and what was written down."""
    program = found.program
    maps = (f"{used.name or 'unnamed'} ({used.id})" for used in program.maps or ())
    yield "maps", ", ".join(maps)
    if found.record is not None:
        yield from _recorded(found.record)


def _recorded(stored: StoredRecord) -> Iterator[tuple[str, str]]:
    """Yield what was written down with the program."""
    from xdpkit.cli.values import format_value

    record, origin = stored.record, stored.record.origin
    if record.counting:
        what = "packets and bytes" if record.counting.with_bytes else "packets"
        yield "counts", f"{what}, in place of program {record.logical_id}"
    yield "attached", _moment(datetime.fromtimestamp(round(record.attached_at / 1e9), UTC))
    if origin.path is not None:
        digest = f", sha256 {origin.sha256[:_DIGITS]}" if origin.sha256 is not None else ""
        yield "from", f"{origin.path}{digest}"
    settings = (f"{name} = {format_value(value)}" for name, value in origin.variables.items())
    yield "set", ", ".join(settings)
    yield "port", str(record.port) if record.port is not None else ""
    yield "cookie", str(record.cookie) if record.cookie else ""
    yield "policy", f"{origin.policy}, forced" if origin.was_forced else origin.policy
    if record.negotiation is not None:
        yield from _verdicts(record.negotiation)
    author = f"written by xdpkit {origin.xdpkit}"
    if stored.unknown:
        author += "; parts of it are not understood here"
    yield "record", author


def _verdicts(negotiation: Negotiation) -> Iterator[tuple[str, str]]:
    from xdpkit.negotiation import sentence

    counts = Counter(verdict.outcome.value for verdict in negotiation.verdicts)
    yield "verdicts", ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    for verdict in (*negotiation.refused, *negotiation.degraded):
        yield "", f"{verdict.outcome.value}: {sentence(verdict)}"


def _pending(hook: HookStatus, found: AttachedProgram, pin_root: str) -> str | None:
    """Return what is about to become of the program."""
    left = found.seconds_to_revert
    if left is not None and found.record is not None:
        # Under a root it may be another root, whose id says nothing.
        previous = found.record.record.reverts_to if found.root is None else None
        text = undoing(previous, left, command_for("confirm", hook.interface, pin_root=pin_root))
        if found.program.name == LEAVING:
            return (
                f"lets all packets pass in place of program {previous}, which was detached; {text}"
            )
        return text
    if found.is_leaving:
        return (
            "being detached: if the command that does it was killed, the next change finishes it,"
            " or: xdpkit clean"
        )
    return None


def _components(dispatcher: Dispatcher) -> Iterator[str]:
    version = f" of version {dispatcher.version}" if dispatcher.version is not None else ""
    frags = ", takes frags" if dispatcher.frags else ""
    yield f"  libxdp's dispatcher{version}{frags}: {counted(len(dispatcher.programs), 'program')}"
    yield from table(
        [
            Column("priority", right=True),
            Column("id", right=True),
            Column("program"),
            Column("tag"),
            Column("goes on after"),
        ],
        map(_component, dispatcher.programs),
        width=width(),
        indent="    ",
    )


def _component(program: Component) -> list[str]:
    return [
        "" if program.priority is None else str(program.priority),
        "" if program.id is None else str(program.id),
        program.name or "",
        program.tag or "",
        ", ".join(program.chain_call),
    ]


def _moment(when: datetime) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S %Z}"
