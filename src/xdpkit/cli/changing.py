# SPDX-License-Identifier: Apache-2.0
"""What the commands that change a hook have in common: what they are asked for, what they say."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xdpkit.cli.assign import assign
from xdpkit.cli.command import Settings
from xdpkit.cli.options import (
    choose_program,
    object_argument,
    policy_option,
    ports_option,
    program_option,
    set_option,
    target_option,
)
from xdpkit.cli.render import emit, emit_json, message, printable
from xdpkit.cli.undoing import undoing
from xdpkit.errors import RequirementUnmet

if TYPE_CHECKING:
    from xdpkit.hook import (
        Add,
        AddBeside,
        AttachedProgram,
        Delete,
        DeleteFrom,
        Replace,
        ReplaceWithin,
        Terms,
        XdpProg,
    )
    from xdpkit.interfaces import Interface
    from xdpkit.negotiation import Negotiation
    from xdpkit.obj import ProgramSpec

    Change = Add | AddBeside | Replace | ReplaceWithin | Delete | DeleteFrom

_Prepared = TypeVar("_Prepared")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The program that is to go on a hook, and on which terms: options of several commands."""

    object_path: str
    program_name: str | None
    assignments: tuple[str, ...]
    policy: str
    targets: tuple[str, ...]
    force: bool
    cookie: int
    table: str | None

    def read(self, what: str) -> ProgramSpec:
        """Return the program, with its variables set.

        Raises:
            ObjectFormatError: the object is malformed.
            UsageError: there is no such program or variable.
        """
        from xdpkit.obj import read

        obj = read(self.object_path)
        spec = choose_program(obj, self.program_name, what=what)
        assign(obj, self.assignments)
        return spec

    @property
    def terms(self) -> Terms:
        """What the hook is to be told."""
        from xdpkit.negotiation import Policy

        return {
            "policy": Policy(self.policy),
            "targets": self.targets,
            "force": self.force,
            "cookie": self.cookie,
            "ports": self.table,
        }


_OPTIONS = (
    object_argument,
    program_option,
    set_option,
    policy_option,
    target_option,
    ports_option,
    click.option(
        "--force",
        is_flag=True,
        help="Try it even if the interface cannot do it. A program that was loaded for another"
        " device is refused all the same.",
    ),
    click.option(
        "--cookie",
        metavar="N",
        type=int,
        default=0,
        help="A number of your own, written down with the program; 'xdpkit status IFACE' shows it,"
        " and the program can read it: ctx->cookie.",
    ),
)


def takes_program(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument OBJECT and the options of a program; it gets ``wanted``."""

    @functools.wraps(function)
    def gathering(
        *,
        object_path: str,
        program_name: str | None,
        assignments: tuple[str, ...],
        policy: str,
        targets: tuple[str, ...],
        force: bool,
        cookie: int,
        table: str | None,
        **others: Any,
    ) -> Any:
        wanted = Wanted(
            object_path, program_name, assignments, policy, targets, force, cookie, table
        )
        return function(wanted=wanted, **others)

    for option in reversed(_OPTIONS):
        gathering = option(gathering)
    return gathering


def following(
    prepare: Callable[[], _Prepared],
    settings: Settings,
    iface: str,
    *,
    table: str | None,
    pin_root: str,
    dry_run: bool,
) -> _Prepared:
    """Return a change that was prepared, if need be after the port tables have followed.

    An interface that was made anew is a port again only then.

    Args:
        prepare: prepares the change.
        iface: the interface. table: the port table that is meant, if one is.
        dry_run: whether nothing may be changed.

    Raises:
        XdpkitError: it cannot be prepared, or a table cannot follow.
    """
    try:
        return prepare()
    except RequirementUnmet:
        if dry_run or not follow(settings, iface, table=table, pin_root=pin_root):
            raise
    return prepare()


def follow(settings: Settings, iface: str, *, table: str | None, pin_root: str) -> bool:
    """Have the port tables follow that do not know an interface as it is now.

    Returns whether there are any. What has changed is said on standard error.

    Raises:
        XdpkitError: a table cannot follow.
    """
    from xdpkit.hook.ports import unfollowed

    names = unfollowed(iface, netns=settings.netns, pin_root=pin_root, table=table)
    for name in names:
        from xdpkit.ports import PortTable

        with PortTable.open(name, pin_root=pin_root) as opened:
            notes(printable(str(change)) for change in opened.follow())
    return bool(names)


def is_whole(change: Change) -> bool:
    """Return whether a change is one of what is on the hook, not of some RX queues under a root."""
    from xdpkit.hook import Add, Delete, Replace

    return isinstance(change, Add | Replace | Delete)


def where(change: Change, queues: frozenset[int] | None) -> str:
    """Return what goes behind what was done: ", queues 0-3, 8"; "" if it was for all packets."""
    from xdpkit.hook.scope import describe

    return "" if queues is None and is_whole(change) else f", {describe(queues)}"


def before(change: Replace | ReplaceWithin) -> list[AttachedProgram]:
    """Return the programs that are to be replaced, one for each RX queue."""
    from xdpkit.hook import Replace

    if isinstance(change, Replace):
        return [change.present]
    return [dataclasses.replace(found, qid=queue) for queue, found in change.before.items()]


def show_plan(settings: Settings, change: Change, revert_after: float | None) -> None:
    """Say what a change would do, for ``--dry-run``.

    Raises:
        UsageError: it could not be undone after such a time.
    """
    from xdpkit.hook import Delete, DeleteFrom

    change.check_revert(revert_after)
    if settings.json:
        plan = {"dry_run": True, **change.to_dict(), "revert_after": nanoseconds(revert_after)}
        emit_json(plan, pretty=settings.pretty)
        return
    emit([printable(change.describe())])
    if not isinstance(change, Delete | DeleteFrom):
        from xdpkit.cli.verdicts import list_verdicts

        emit(["", *list_verdicts(change.negotiation)])
        notes(change.notes)
    message("dry run: nothing was loaded or changed")


def emit_attached(
    settings: Settings,
    attached: XdpProg,
    negotiation: Negotiation,
    pin_root: str,
    revert_after: float | None,
    **more: object,
) -> None:
    """Print the hook as JSON as it is now, with what came of the change."""
    from xdpkit.hook import Hook

    hook = Hook(attached.interface.index, netns=settings.netns, pin_root=pin_root).status()
    here = (
        found.program.to_dict()
        for found in hook.programs
        if attached.program.id in (found.program.id, found.logical_id)
    )
    document = {
        **hook.to_dict(),
        "mode": attached.mode.value,
        "queues": None if attached.queues is None else sorted(attached.queues),
        "prog": next(here, None),
        "port": attached.port.to_dict() if attached.port is not None else None,
        **more,
        "negotiation": negotiation.to_dict(),
        "overridden": not negotiation.is_allowed,
        "revert_after": nanoseconds(revert_after),
        "notes": list(attached.notes),
    }
    emit_json(document, pretty=settings.pretty)


def until_confirmed(
    interface: Interface, pin_root: str, reverts_to: int | None, revert_after: float | None
) -> Iterator[str]:
    """Yield the line that says how a change is kept, if it is undone otherwise.

    The arguments are those of :func:`~xdpkit.cli.undoing.undoing`.
    """
    if revert_after is not None:
        from xdpkit.hook.state import command_for

        confirm = command_for("confirm", interface, pin_root=pin_root)
        yield printable(f"  {undoing(reverts_to, revert_after, confirm)}")


def notes(texts: Iterable[str]) -> None:
    """Say on standard error what there is to know."""
    for text in texts:
        message(text)


def nanoseconds(seconds: float | None) -> int | None:
    """Return a duration as JSON has it."""
    return None if seconds is None else round(seconds * 1e9)
