# SPDX-License-Identifier: Apache-2.0
"""Links: what holds a program on its hook, as an object with an owner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdpkit.errors import UsageError
from xdpkit.kernel.handle import Handle
from xdpkit.kernel.programs import Program
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import BPF_F_REPLACE, LinkType, ProgType

_KNOWN_TYPES = frozenset(LinkType)


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What the kernel says about a link (``struct bpf_link_info``).

    Attributes:
        id: unique until the next boot.
        type: a number that this version does not know stays a number.
        program_id: the program that it holds.
        ifindex: of an XDP link: its interface, 0 when it is detached or the interface is gone; None
            for other types.
        tracepoint: of a raw tracepoint link: its name; None for other types.
    """

    id: int
    type: LinkType | int
    program_id: int
    ifindex: int | None = None
    tracepoint: str | None = None


class Link(Handle):
    """A link: a context manager that owns a file descriptor.

    The program is detached when the last owner of the link goes: descriptor, pin.
    """

    _KIND = ObjectKind.LINK

    def __init__(self, fd: Fd) -> None:
        """Take over a link's descriptor."""
        super().__init__(fd)
        try:
            self._id = int(bpf.link_info(fd.fileno()).id)
        except BaseException:
            fd.close()
            raise

    @property
    def id(self) -> int:
        """Unique until the next boot."""
        return self._id

    @property
    def _label(self) -> str:
        return f"link {self.id}"

    def info(self) -> LinkInfo:
        """Ask the kernel about it."""
        number = self.fileno()
        info = bpf.link_info(number)
        ifindex = tracepoint = None
        if info.type == LinkType.XDP:
            ifindex = bpf.xdp_link_ifindex(number)
        elif info.type == LinkType.RAW_TRACEPOINT:
            tracepoint = bpf.raw_tracepoint_name(number)
        return LinkInfo(
            id=info.id,
            type=LinkType(info.type) if info.type in _KNOWN_TYPES else info.type,
            program_id=info.prog_id,
            ifindex=ifindex,
            tracepoint=tracepoint,
        )

    def update(self, program: Program, *, expected: Program | None = None) -> None:
        """Replace the program in one step.

        Args:
            program: the new one.
            expected: the one that must be there now; None: whichever.

        Raises:
            KernelRefused: EPERM, it is not the expected program that is there; EINVAL, the new one
                is of another type; ENOLINK, the link is detached.
        """
        bpf.link_update(
            self.fileno(),
            program.fileno(),
            flags=0 if expected is None else BPF_F_REPLACE,
            expected=None if expected is None else expected.fileno(),
            what=f"replace the program of link {self.id} by {program.name}",
        )

    def detach(self) -> None:
        """Detach the program now, whoever else owns the link."""
        bpf.link_detach(self.fileno(), what=f"detach link {self.id}")

    def __repr__(self) -> str:
        return f"<Link {self.id}{', closed' if self._fd.closed else ''}>"


def attach_tracepoint(program: Program) -> Link:
    """Attach a ``tp_btf`` or ``raw_tp`` program to its tracepoint.

    Raises:
        UsageError: the program is of another type, or not known what for.
    """
    what = f"attach {program.name} to a tracepoint"
    name = None
    if program.type == ProgType.RAW_TRACEPOINT:
        name = program.attach_to
        if name is None:
            raise UsageError(what, cause='it does not say to which: SEC("raw_tp/NAME")')
    elif program.type != ProgType.TRACING:
        raise UsageError(what, cause="it is neither a tp_btf nor a raw_tp program")
    return Link(bpf.raw_tracepoint_open(program.fileno(), name, what=what))


def link_ids() -> Iterator[int]:
    """Yield the ids of all links in the kernel.

    Raises:
        MissingPrivilege: without CAP_SYS_ADMIN.
    """
    return bpf.ids(ObjectKind.LINK)
