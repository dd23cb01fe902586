# SPDX-License-Identifier: Apache-2.0
"""What a loaded program reads in the fields that xdpkit adds to its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, MissingPrivilege, UsageError
from xdpkit.obj.spec import ProgramSpec

if TYPE_CHECKING:
    from xdpkit.kernel import Given, Program

NOT_KNOWN = "another process loaded it, and did not keep what it reads as port_index and cookie"
"""Why it is not known what a program reads."""

_PORT_INDEX = "port_index"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a program, and those that it tail-calls, read.

    Attributes:
        given: what each of them got, as far as it is known.
        is_known: whether that is all.
    """

    given: tuple[Given, ...] = ()
    is_known: bool = True

    @property
    def may_need_a_port(self) -> bool:
        """Whether one of them reads its port, or may do so."""
        return not self.is_known or any(_PORT_INDEX in each.fields for each in self.given)


def reading_of(program: ProgramSpec | Program) -> Reading:
    """Return what a loaded program reads; nothing yet if it is still to be loaded."""
    if isinstance(program, ProgramSpec):
        return Reading()
    if program.was_loaded_here:
        found = (program.context, *(leaf.context for leaf in program.leaves))
        return Reading(tuple(each for each in found if each is not None))
    from xdpkit.hook import reach

    try:
        reached = reach.look([program.id]).programs.values()
    except (MissingPrivilege, KernelRefused):
        return Reading(is_known=False)
    images = [each.image for each in reached]
    contexts = [image.context for image in images if image is not None]
    return Reading(
        tuple(each for each in contexts if each is not None),
        is_known=bool(images) and None not in images,
    )


def looking_up(program: ProgramSpec | Program, pin_root: str) -> Reading:
    """Return what a program reads; of one of which that is not known, whether it looks its port up.

    To do so it has the map of numbers of a table, and the kernel tells which maps a program has.

    Raises:
        RequirementUnmet: somebody else made the folder of the tables.
        MissingPrivilege: there are tables, and only root may look.
    """
    reading = reading_of(program)
    if reading.is_known or isinstance(program, ProgramSpec):
        return reading
    from xdpkit.kernel import Given
    from xdpkit.tables import store

    own = set(program.info().map_ids)
    known = {each.numbers for each in reading.given}
    numbers = own.intersection(store.incarnations(pin_root).values()) - known
    found = tuple(Given((_PORT_INDEX,), numbers=each) for each in sorted(numbers))
    return Reading((*reading.given, *found), is_known=bool(found))


def require_cookie(
    program: ProgramSpec | Program, cookie: int, what: str, *, remedy: str | None = None
) -> None:
    """Refuse a loaded program that reads another cookie than the one that it is to be given.

    Args:
        what: what is being tried, for errors.
        remedy: what helps; None: to attach it with its own.

    Raises:
        UsageError: so it does.
    """
    for given in reading_of(program).given:
        if "cookie" in given.fields and given.cookie != cookie:
            raise UsageError(
                what,
                cause=f"it was loaded with cookie {given.cookie}, which it reads, and is to be"
                f" given {cookie}",
                remedy=remedy or f"attach it with cookie={given.cookie}",
            )
