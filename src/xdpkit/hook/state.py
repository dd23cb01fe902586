# SPDX-License-Identifier: Apache-2.0
"""What is on a hook, as values."""

from __future__ import annotations

import enum
import shlex
import struct
import time
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1, sha256
from typing import TYPE_CHECKING

from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.pins import root_of
from xdpkit.interfaces import Interface
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.syscalls.netns import nsenter
from xdpkit.uapi.bpf import ProgType, XdpAction

if TYPE_CHECKING:
    from xdpkit.hook.dispatcher import Dispatcher
    from xdpkit.hook.record import StoredRecord
    from xdpkit.hook.roots import Root
    from xdpkit.syscalls.proc import Holder

LEAVING = "xdpkit_leaving"
"""The program that lets all packets pass while another one is detached."""

# r0 = XDP_PASS; exit
LEAVING_CODE = struct.pack("=BBhiBBhi", 0xB7, 0, 0, XdpAction.PASS, 0x95, 0, 0, 0)
# Linux 6.18 took SHA-256 for SHA-1: bpf_prog_calc_tag() in kernel/bpf/core.c.
_LEAVING_TAGS = {
    hash_(LEAVING_CODE, usedforsecurity=False).digest()[:8].hex() for hash_ in (sha1, sha256)
}


class Owner(enum.Enum):
    """Whose an attached program is, as far as can be told."""

    XDPKIT = "xdpkit"
    LIBXDP = "libxdp"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MapSummary:
    """A map that a program uses: its id, and its name as the kernel has it (15 characters)."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class ProgramSummary:
    """A loaded program. All but the id are None where the kernel does not let this process look.

    Attributes:
        id: unique until reboot.
        name: as the kernel has it, 15 characters.
        tag: hash of the instructions, in hexadecimal.
        type: program type. jited: whether it runs as machine code.
        loaded_at: when, to the second.
        maps: by id.
    """

    id: int
    name: str | None = None
    tag: str | None = None
    type: ProgType | int | None = None
    jited: bool | None = None
    loaded_at: datetime | None = None
    maps: tuple[MapSummary, ...] | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "tag": self.tag,
            "type": self.type.name.lower() if isinstance(self.type, ProgType) else self.type,
            "jited": self.jited,
            "loaded_at": self.loaded_at.isoformat() if self.loaded_at else None,
            "maps": None
            if self.maps is None
            else [{"id": used.id, "name": used.name} for used in self.maps],
        }


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """A program on a hook.

    Attributes:
        mode: how it sits there.
        program: what it is.
        via: what holds it, None where that cannot be told.
        link_id: the link that holds it, or None.
        owner: who put it there.
        pinned: where xdpkit pinned the link, or None.
        record: what xdpkit wrote down when it attached the program, or None.
        dispatcher: what is in it where it is libxdp's, or None.
        holders: the processes that hold the link, where that was asked for.
        qid: the RX queue whose packets it is for; None: all that no other program serves.
        root: what is known of it where it is the root that runs programs by RX queue, or None.
        members: the programs that the root runs, where that was asked for.
        note: what could not be found out, and why; None when nothing is missing.
    """

    mode: Mode
    program: ProgramSummary
    via: Via | None
    link_id: int | None
    owner: Owner
    pinned: str | None
    note: str | None
    record: StoredRecord | None = None
    dispatcher: Dispatcher | None = None
    holders: tuple[Holder, ...] = ()
    qid: int | None = None
    root: Root | None = None
    members: tuple[AttachedProgram, ...] = ()

    @property
    def are_members_known(self) -> bool:
        """Whether it is a root, and could be looked into: that takes CAP_SYS_ADMIN."""
        return self.root is not None and self.root.queues > 0

    @property
    def logical_id(self) -> int:
        """The id that the program had when it was attached: of one that counts, its original's."""
        return (self.record.record.logical_id if self.record else 0) or self.program.id

    @property
    def seconds_to_revert(self) -> float | None:
        """How long until the change is undone that put it there, unless that is confirmed.

        Negative: it should have been undone, and was not. None: nothing waits for confirmation.
        """
        if self.record is None or not self.record.record.revert_at:
            return None
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return (self.record.record.revert_at - now) / 1e9

    @property
    def is_leaving(self) -> bool:
        """Whether it only stands in for a program that a killed command was detaching."""
        is_stand_in = self.program.name == LEAVING and self.program.tag in _LEAVING_TAGS
        return is_stand_in and self.seconds_to_revert is None

    def describe(self) -> str:
        """Return it as a phrase: "program 12 (xdp_pass, tag …) in native mode, by link 7"."""
        program = self.program
        details = [program.name or "", f"tag {program.tag}" if program.tag else ""]
        known = ", ".join(detail for detail in details if detail)
        text = f"program {program.id}{f' ({known})' if known else ''} in {self.mode.value} mode"
        if self.link_id is not None:
            text += f", by link {self.link_id}"
        elif self.via is Via.NETLINK:
            text += ", by netlink"
        if self.owner is Owner.LIBXDP:
            text += ", libxdp's dispatcher"
        if self.pinned is not None:
            text += f", pinned at {self.pinned}"
        return text

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        return {
            "mode": self.mode.value,
            "qid": self.qid,
            "prog": self.program.to_dict(),
            "via": self.via.value if self.via else None,
            "link": {"id": self.link_id} if self.link_id is not None else None,
            "owner": self.owner.value,
            "pinned": self.pinned,
            "leaving": self.is_leaving,
            "reverts_in": None if (left := self.seconds_to_revert) is None else round(left * 1e9),
            "record": self.record.to_dict() if self.record else None,
            "dispatcher": self.dispatcher.to_dict() if self.dispatcher else None,
            "holders": [{"pid": holder.pid, "name": holder.name} for holder in self.holders],
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class HookStatus:
    """An interface and what is attached to it.

    Attributes:
        interface: the interface.
        attached: what the kernel has on the hook: one program, or two where one is on the NIC. The
            root, which runs programs by RX queue, is one of them.
    """

    interface: Interface
    attached: tuple[AttachedProgram, ...]

    @property
    def root(self) -> AttachedProgram | None:
        """The root, None where no queue has a program of its own."""
        return next((found for found in self.attached if found.root is not None), None)

    @property
    def programs(self) -> tuple[AttachedProgram, ...]:
        """The programs that serve packets, in place of the root those that it runs.

        Of one that serves several queues there is one for each.
        """
        return tuple(
            program
            for found in self.attached
            for program in (found.members if found.are_members_known else (found,))
        )

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data, for JSON."""
        root = self.root
        return {
            "interface": self.interface.name,
            "ifindex": self.interface.index,
            "netns": self.interface.netns,
            "attached": [attached.to_dict() for attached in self.programs],
            "root": root.to_dict() if root is not None else None,
        }


def command_for(
    verb: str, interface: Interface, *options: str, pin_root: str = DEFAULT_ROOT
) -> str:
    """Return the command of xdpkit's that does something to an interface, for a shell."""
    words = ["xdpkit", verb]
    if interface.netns is not None:
        words += ["-n", interface.netns]
    if pin_root != DEFAULT_ROOT:
        words += ["--pin-root", pin_root]
    words += options
    if interface.name.startswith("-"):
        words.append("--")
    return shlex.join([*words, interface.name])


def removal(attached: AttachedProgram, interface: Interface) -> str | None:
    """Return the command that takes a program off its hook, None where none is sure."""
    if attached.owner is Owner.XDPKIT:
        root = root_of(attached.pinned) if attached.pinned is not None else DEFAULT_ROOT
        # What is not pinned where we look is detached by those who say that they mean it.
        is_kept = attached.pinned is not None or attached.via is Via.NETLINK
        options = () if is_kept else ("--expect", str(attached.program.id))
        if attached.root is not None:
            options = ("--all", *options)
        return command_for("detach", interface, *options, pin_root=root)
    name = shlex.quote(interface.name)
    enter = nsenter(interface.netns)
    if attached.owner is Owner.LIBXDP:
        # A name may look like an option.
        argument = f"-- {name}" if interface.name.startswith("-") else name
        return f"{enter}xdp-loader unload --all {argument}"
    if attached.via is Via.NETLINK:
        word = {Mode.NATIVE: "xdpdrv", Mode.GENERIC: "xdpgeneric", Mode.OFFLOAD: "xdpoffload"}
        return f"{enter}ip link set dev {name} {word[attached.mode]} off"
    if attached.link_id is not None:
        return f"bpftool link detach id {attached.link_id}"
    return None
