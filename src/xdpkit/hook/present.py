# SPDX-License-Identifier: Apache-2.0
"""The program that is to be replaced or deleted: which it is, and whether it may be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeGuard

from xdpkit.errors import HookBusy, MissingPrivilege, RequirementUnmet, UsageError
from xdpkit.hook.holding import (
    ByLink,
    Holding,
    as_held,
    exchanged,
    hidden,
    holding_of,
    open_program,
)
from xdpkit.hook.homes import ids_on
from xdpkit.hook.mode import Via
from xdpkit.hook.state import AttachedProgram, HookStatus, Owner, removal
from xdpkit.hook.xdpprog import XdpProg
from xdpkit.interfaces import Interface, resolve
from xdpkit.kernel.folder import BY_NAME, DEFAULT_ROOT
from xdpkit.kernel.programs import Program
from xdpkit.syscalls import mounts

Expected = int | Program | XdpProg

NOTHING = "nothing is attached to it"


def expected_id(expected: Expected | None, what: str) -> int | None:
    """Return the id of the program that has to be there.

    Raises:
        UsageError: it is none.
    """
    if isinstance(expected, XdpProg):
        logical_id = expected.record.logical_id if expected.record is not None else 0
        return logical_id or expected.program.id
    if isinstance(expected, Program):
        return expected.id
    if expected is not None and not isinstance(expected, int):
        raise UsageError(
            what,
            cause=f"{expected!r} cannot be expected: give a program's id, or what was returned for"
            " it",
        )
    return expected


def is_on(expected: Expected | None, interface: Interface) -> TypeGuard[XdpProg]:
    """Whether what is expected was attached to this very interface, and not to another one."""
    return isinstance(expected, XdpProg) and (
        (expected.interface.netns_cookie, expected.interface.index)
        == (interface.netns_cookie, interface.index)
    )


def owns_link(expected: Expected | None, interface: Interface) -> bool:
    """Whether this process holds the interface's link by what is expected there."""
    return is_on(expected, interface) and expected.link is not None


def find_present(
    found: HookStatus,
    expected: int | None,
    pin_root: str,
    what: str,
    *,
    can_be_named: bool = True,
    was_seen: bool = False,
) -> AttachedProgram:
    """Return the program that is meant: the expected one, else the one that xdpkit keeps there.

    Args:
        found: the hook. expected: the id of the program that has to be there.
        pin_root: the bpffs in which links are pinned. what: what is being tried, for errors.
        can_be_named: whether somebody else's program may be meant, too, by its id.
        was_seen: whether it is expected only because it was there at an earlier look.

    Raises:
        UsageError: there is no program at all.
        HookBusy: what is there is not the expected one, or not ours.
        MissingPrivilege: this process may not see whose it is.
    """
    interface = found.interface
    attached = [program for program in found.attached if not program.is_leaving]
    if not attached:
        if was_seen:
            raise exchanged(what, interface)
        raise UsageError(what, cause=NOTHING)
    if expected is not None:
        for program in attached:
            if expected in (program.program.id, program.logical_id):
                return as_held(program, interface, what)
        if was_seen:
            raise exchanged(what, interface)
        raise HookBusy(
            what, cause=f"program {expected} is expected, but there is {attached[0].describe()}"
        )
    attached = [as_held(program, interface, what) for program in attached]
    for program in attached:
        if is_kept_by_us(program):
            return program
    if not _is_still_on(interface, attached[0].program.id):
        # It went while it was looked at, and what xdpkit knew of it first.
        raise exchanged(what, interface)
    if attached[0].via is None:
        raise hidden(attached[0], interface, what)
    raise _not_ours(attached[0], found, pin_root, what, can_be_named)


def _is_still_on(interface: Interface, program_id: int) -> bool:
    try:
        return program_id in ids_on(resolve(interface.index, netns=interface.netns))
    except UsageError:
        return False


def require_understood(present: AttachedProgram, what: str) -> None:
    """Refuse to lose what a newer version has written down with a program that is to go.

    Raises:
        RequirementUnmet: it has written more than this version understands.
    """
    stored = present.record
    if stored is not None and stored.unknown:
        version = stored.record.origin.xdpkit
        raise RequirementUnmet(
            what,
            cause=f"xdpkit {version} attached the present program, and wrote down more about"
            " it than this version understands; it would be lost",
            remedy=f"use xdpkit {version} or later; or detach the program and attach anew",
        )


def is_kept_by_us(program: AttachedProgram) -> bool:
    """Whether xdpkit attached it, to stay: by a pin that is seen from here, or by netlink."""
    return program.owner is Owner.XDPKIT and (
        program.pinned is not None or program.via is Via.NETLINK
    )


def _not_ours(
    program: AttachedProgram, found: HookStatus, pin_root: str, what: str, can_be_named: bool
) -> HookBusy:
    number = program.program.id
    expect = f"; or name it: --expect {number} (expected={number})" if can_be_named else ""
    if program.owner is Owner.XDPKIT and pin_root == DEFAULT_ROOT and mounts.hidden_bpffs():
        cause = (
            f"xdpkit attached what is there, but {pin_root} with the pins is hidden here, as by ip"
            f" netns exec: {program.describe()}"
        )
        remedy = BY_NAME
    elif program.owner is Owner.XDPKIT:
        cause = (
            f"xdpkit attached what is there, but did not pin it below {pin_root}: a process holds"
            f" it, or it is pinned elsewhere: {program.describe()}"
        )
        if program.note is not None:
            cause += f"; {program.note}"
        remedy = f"let whoever attached it detach it{expect}"
        if pin_root == DEFAULT_ROOT:
            remedy += "; or name the place of the pin: --pin-root"
    else:
        cause = f"xdpkit did not attach what is there: {program.describe()}"
        command = removal(program, found.interface)
        remedy = "let the tool that attached it detach it"
        remedy += f", or: {command}{expect}" if command else expect
    return HookBusy(what, cause=cause, remedy=remedy)


def _own_descriptor(expected: Expected | None, number: int) -> int | None:
    """Return this process's descriptor of the expected program, None if it has none open.

    What is on the hook can be a copy of it, with another id.
    """
    program = expected.program if isinstance(expected, XdpProg) else expected
    if isinstance(program, Program) and program.id == number:
        with contextlib.suppress(UsageError):
            return program.fileno()
    return None


@contextlib.contextmanager
def opened(
    attached: AttachedProgram,
    found: HookStatus,
    expected: Expected | None,
    what: str,
) -> Iterator[tuple[Holding, int | None, str | None]]:
    """Yield what holds a program, the program's descriptor to compare with, and a note.

    The descriptor is None where the kernel does not let this process look the program up and
    nobody asked for the comparison; then the note says so.

    Raises:
        HookBusy: the program or its link has gone meanwhile.
        MissingPrivilege: the comparison was asked for, and takes CAP_SYS_ADMIN.
    """
    with contextlib.ExitStack() as resources:
        holding: Holding
        link = expected.link if is_on(expected, found.interface) else None
        if link is not None and attached.via is not Via.NETLINK:
            holding = ByLink(link, found.interface, attached.mode)
        else:
            holding = resources.enter_context(holding_of(attached, found.interface, what))
        own = _own_descriptor(expected, attached.program.id)
        if own is not None:
            yield holding, own, None
            return
        try:
            compared = resources.enter_context(
                open_program(attached.program.id, found.interface, what)
            )
        except MissingPrivilege as error:
            if expected is not None:
                raise
            yield holding, None, f"the change was not compared-and-swapped: {error.cause}"
        else:
            yield holding, compared.fileno(), None
