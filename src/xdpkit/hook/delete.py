# SPDX-License-Identifier: Apache-2.0
"""Take a program off its hook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from xdpkit.errors import UsageError
from xdpkit.hook import pins as pinned
from xdpkit.hook import revert
from xdpkit.hook.holding import Holding, open_program, stand_in
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.pins import HookFolder
from xdpkit.hook.place import Place
from xdpkit.hook.present import NOTHING, Expected, expected_id, find_present, opened
from xdpkit.hook.repair import finish_leaving, repair
from xdpkit.hook.seats import Seats, require_sight
from xdpkit.hook.state import AttachedProgram, HookStatus, ProgramSummary
from xdpkit.hook.unread import ends_unread
from xdpkit.hook.writing import forget, forget_member, write_own
from xdpkit.interfaces import Interface
from xdpkit.kernel.programs import Program
from xdpkit.syscalls.fd import Fd

if TYPE_CHECKING:
    from xdpkit.hook.record import StoredRecord


@dataclass(frozen=True, slots=True)
class Detached:
    """What was on a hook until it was taken off.

    Attributes:
        interface: the interface, as it was before.
        mode: how the program was attached. program: what it was.
        link_id: the link that held it, None where netlink did.
        notes: what there is to know, in sentences.
        record: what xdpkit wrote down when it attached the program, or None.
        programs: the programs by RX queue where they were under a root; None: the global one.
    """

    interface: Interface
    mode: Mode
    program: ProgramSummary
    link_id: int | None
    notes: tuple[str, ...] = ()
    record: StoredRecord | None = None
    programs: Mapping[int | None, ProgramSummary] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "mode": self.mode.value,
            "prog": self.program.to_dict(),
            "link": {"id": self.link_id} if self.link_id is not None else None,
            "detached": [
                {"qid": queue, "prog": program.to_dict()}
                for queue, program in (self.programs or {None: self.program}).items()
            ],
            "notes": list(self.notes),
        }


class Delete:
    """A detach that has been prepared: nothing is changed before :meth:`apply`.

    Attributes:
        found: the hook as it was seen.
    """

    def __init__(
        self,
        place: Place,
        *,
        expected: Expected | None = None,
        found: HookStatus | None = None,
        check: Callable[[HookStatus], None] = lambda found: None,
    ) -> None:
        """Look at the hook.

        Args:
            place: the hook. expected: the program that has to be there.
            found: the hook as it was seen just before.
            check: raises an error if the hook is not as it was; called before the change.

        That nothing is attached is not said before :meth:`apply` has swept what a killed detach
        may have left.

        Raises:
            UsageError: there is no such interface, or what is expected is no program.
            HookBusy: the program there is not ours, or not the expected one.
        """
        self.what = f"detach the program on {place.iface}"
        self._place = place
        self._expected = expected
        self._wanted = expected_id(expected, self.what)
        self._check = check
        self.found = found or place.look()
        self._present: AttachedProgram | None = None
        with contextlib.suppress(UsageError):
            self._present = find_present(self.found, self._wanted, place.pin_root, self.what)

    @property
    def present(self) -> AttachedProgram:
        """The program that was seen, and is to go.

        Raises:
            UsageError: nothing was attached.
        """
        if self._present is None:
            raise UsageError(self.what, cause=NOTHING)
        return self._present

    def describe(self) -> str:
        """Return what would change, as a sentence.

        Raises:
            UsageError: nothing is attached.
        """
        name = self.found.interface.name
        members = self._members(self.found, self.present)
        gone = {each.program.id: each for each in members.values()} or {0: self.present}
        return f"would detach from {name}: {', '.join(each.describe() for each in gone.values())}"

    def to_dict(self) -> dict[str, object]:
        """Return what would change as plain data, for JSON.

        Raises:
            UsageError: nothing is attached.
        """
        interface = self.found.interface
        members = self._members(self.found, self.present)
        return {
            "change": "detach",
            "interface": interface.name,
            "ifindex": interface.index,
            "netns": interface.netns,
            "queues": None,
            "before": [{**each.to_dict(), "qid": queue} for queue, each in members.items()]
            or [self.present.to_dict()],
            "notes": [],
        }

    def check_revert(self, revert_after: float | None) -> None:
        """Refuse a time after which it could not be undone.

        Raises:
            UsageError: it makes no sense, or another change waits.
            MissingPrivilege: undoing takes CAP_SYS_ADMIN.
        """
        revert.check(revert_after, self.what, stays=True, present=self._present)

    @ends_unread
    def apply(self, *, revert_after: float | None = None) -> Detached:
        """Do it.

        With an expected program, only that one goes: another that takes its place meanwhile stays.

        Args:
            revert_after: seconds after which the program is put back by a process that is left
                behind, unless :meth:`xdpkit.hook.Hook.confirm` is called before. Until then a
                program that lets all packets pass stands in.

        Raises:
            UsageError: nothing is attached, or the interface has gone.
            HookBusy: the program there is not ours any more, or not the expected one.
            RequirementUnmet: somebody else made the folder of pins.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        self.check_revert(revert_after)
        place, what = self._place, self.what
        by_netlink = any(each.via is Via.NETLINK for each in self.found.attached)
        notes: tuple[str, ...] = ()
        with place.pins.locked(what, create=False, lenient=by_netlink) as has_pins:
            interface = place.resolve_again(self.found.interface)
            put_right = repair if has_pins else finish_leaving
            found = put_right(interface, place.pins, what)
            present = find_present(found, self._wanted, place.pin_root, what)
            require_sight(found, what)
            self._check(found)
            members = self._members(found, present)
            folder = place.pins.folder_of(found.interface) if has_pins else None
            with opened(present, found, self._expected, what) as (holding, compared, note):
                link_id = holding.link_id
                if revert_after is not None:
                    self._stand_in(found, present, holding, compared, folder, revert_after)
                else:
                    # Without an expectation, whichever program is ours is meant; but netlink would
                    # detach anybody's.
                    is_any = self._wanted is None and link_id is not None
                    notes = () if is_any or note is None else (note,)
                    holding.drop(None if is_any else compared, what)
                    forget(present, compared)
                    for number in {each.program.id: each for each in members.values()}:
                        forget_member(number, found.interface)
            # The pins go last: after a crash in between, they are found and swept.
            if revert_after is None and folder is not None and folder.keeps(present.program.id):
                pinned.remove(folder.path)
        return Detached(
            found.interface,
            present.mode,
            present.program,
            link_id,
            notes,
            present.record,
            {queue: each.program for queue, each in members.items()},
        )

    def _members(
        self, found: HookStatus, present: AttachedProgram
    ) -> dict[int | None, AttachedProgram]:
        """Return the programs that a root runs."""
        if present.root is None:
            return {}
        seats = Seats(found, present)
        members = seats.all(self.what)
        seen = {number: seats.look_at(number) for number in set(members.values())}
        return {queue: seen[number] for queue, number in members.items()}

    def _stand_in(
        self,
        found: HookStatus,
        present: AttachedProgram,
        holding: Holding,
        compared: int | None,
        folder: HookFolder | None,
        revert_after: float,
    ) -> None:
        """Exchange the program for one that lets all packets pass, until somebody confirms.

        Raises:
            MissingPrivilege: holding the program that is to come back takes CAP_SYS_ADMIN.
        """
        with contextlib.ExitStack() as resources:
            if compared is None:
                program = resources.enter_context(
                    open_program(present.program.id, found.interface, self.what)
                )
                compared = program.fileno()
            stand_in(
                holding,
                compared,
                self.what,
                partial(self._guarded, found.interface, present, compared, folder, revert_after),
            )

    @contextlib.contextmanager
    def _guarded(
        self,
        interface: Interface,
        present: AttachedProgram,
        previous: int,
        folder: HookFolder | None,
        revert_after: float,
        leaving: Fd,
    ) -> Iterator[None]:
        with Program(Fd.duplicate(leaving.fileno())) as program:
            record, _ = write_own(
                program,
                interface,
                present.mode,
                present.via or Via.LINK,
                revert_after=revert_after,
                reverts_to=present.program.id,
            )
            revert.require_record(record, revert_after, self.what)
            with contextlib.ExitStack() as during:
                during.enter_context(
                    revert.guarding(interface, self._place, program, record, previous)
                )
                if folder is not None and folder.link is None:
                    # By it, the pins are seen to be in use.
                    pins = self._place.pins
                    during.enter_context(
                        pins.keeping((), folder.path, self.what, program=program, holder=True)
                    )
                yield
