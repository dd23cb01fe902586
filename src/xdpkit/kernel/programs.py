# SPDX-License-Identifier: Apache-2.0
"""Programs in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from xdpkit.kernel import testrun
from xdpkit.kernel.handle import Handle
from xdpkit.kernel.maps import Map
from xdpkit.kernel.testrun import RunResult, XdpContext
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import ProgType

if TYPE_CHECKING:
    from xdpkit.kernel.context import Given
    from xdpkit.kernel.image import Image
    from xdpkit.obj import ProgramSpec

_KNOWN_TYPES = frozenset(ProgType)
_ErrorType = type[BaseException]


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says about a program (``struct bpf_prog_info``).

    Attributes:
        id: unique until the next boot.
        name: at most 15 characters.
        type: a number that this version does not know stays a number.
        tag: hash of the instructions, 16 hexadecimal digits; comparable within one kernel only.
        jited_size: bytes of machine code; 0 if it is interpreted or hidden.
        xlated_size: bytes of instructions as the verifier rewrote them.
        load_time_ns: when it was loaded, in nanoseconds of CLOCK_BOOTTIME.
        created_by_uid: the user who loaded it.
        map_ids: the maps that it uses, and those bound to it.
        ifindex: the device that it is offloaded to, else 0; the kernel does not tell of one that is
            merely bound to a device (BPF_F_XDP_DEV_BOUND_ONLY, Linux 6.3).
        netns_ino: inode number of the network namespace in which ifindex counts, else 0.
        gpl_compatible: whether its license is.
        btf_id: id of its BTF, 0 without.
        run_time_ns, run_count: what it did while statistics were on (``kernel.bpf_stats_enabled``).
        recursion_misses: how often it did not run because it ran already.
        verified_instructions: how many the verifier looked at; 0 before Linux 5.16.
        attach_btf_id: what a tracing program was loaded for, in the BTF with id
            attach_btf_object_id.
    """

    id: int
    name: str
    type: ProgType | int
    tag: str
    jited_size: int
    xlated_size: int
    load_time_ns: int
    created_by_uid: int
    map_ids: tuple[int, ...]
    ifindex: int
    netns_ino: int
    gpl_compatible: bool
    btf_id: int
    run_time_ns: int
    run_count: int
    recursion_misses: int
    verified_instructions: int
    attach_btf_object_id: int
    attach_btf_id: int


class Program(Handle):
    """A program in the kernel: a context manager that owns a file descriptor.

    Closing a Program that :func:`xdpkit.kernel.load` returned closes the maps made for it, too. The
    kernel keeps both as long as something (a link, a pin) uses them.

    Attributes:
        maps: the maps that it uses, by their names in the object file; empty if it was not loaded
            by this process.
        spec: what it was loaded from, with the variables as they were set then; None if this
            process did not load it.
        made: the maps that were made with it, by name; of program arrays, the ids of what was put
            into which slot. Others were given, or pinned before.
        leaves: the programs that were loaded with it for program arrays that it reaches.
        counters: the map in which it counts what it returns, if it is a copy that does so without
            its author's doing; else None.
        held: maps beside its author's that it was loaded with: those of a copy that counts.
        context: what it reads in the fields that xdpkit adds to its context; None: it reads none of
            them, or was not loaded by this process.
        pins_made: where maps were pinned for it that were not pinned before.
        bound_to: the device that it was loaded for, as its namespace's cookie and its index; None:
            for none, or that is not known.
        attach_to: the tracepoint that it is for, None for other types.
        notes: what it had to do without on this kernel.
        log: the verifier's log, empty unless one was asked for.
    """

    _KIND = ObjectKind.PROGRAM

    def __init__(
        self,
        fd: Fd,
        *,
        name: str | None = None,
        maps: Mapping[str, Map] = MappingProxyType({}),
        owned: ExitStack | None = None,
        spec: ProgramSpec | None = None,
        made: Mapping[str, Mapping[int, int]] = MappingProxyType({}),
        leaves: tuple[Program, ...] = (),
        counters: Map | None = None,
        held: tuple[Map, ...] = (),
        image: Callable[[ProgramInfo], Image] | None = None,
        context: Given | None = None,
        pins_made: tuple[str, ...] = (),
        bound_to: tuple[int, int] | None = None,
        attach_to: str | None = None,
        notes: tuple[str, ...] = (),
        log: str = "",
    ) -> None:
        """Take over a program's descriptor.

        Args:
            fd: the descriptor; it belongs to the Program from now on.
            name: what to call it; None: as the kernel does.
            maps: what it uses.
            owned: what to close with the program.
            spec: what it was loaded from.
            made: the maps made with it, and what was put into program arrays.
            leaves: the programs that were put there.
            counters: the map in which it counts what it returns.
            held: maps that are not its author's.
            image: makes its image, from what the kernel says about it.
            context: what it got in its context.
            pins_made: where maps were pinned for it.
            bound_to: the device that it was loaded for.
            attach_to: the tracepoint that it is for.
            notes: what it had to do without.
            log: what the verifier said.
        """
        super().__init__(fd)
        self._owned = owned or ExitStack()
        try:
            self._info = read_info(fd)
        except BaseException:
            self.close()
            raise
        self._name = name or self._info.name
        self.maps = MappingProxyType(dict(maps))
        self.spec = spec
        self.made = made
        self.leaves = leaves
        self.counters = counters
        self.held = held
        self._make_image = image
        self.context = context
        self.pins_made = pins_made
        self.bound_to = bound_to
        self.attach_to = attach_to
        self.notes = notes
        self.log = log

    @property
    def _label(self) -> str:
        return f"program {self.name}"

    @property
    def name(self) -> str:
        """Its function's name in the object file, else the kernel's."""
        return self._name

    @property
    def id(self) -> int:
        """Unique until the next boot."""
        return self._info.id

    @property
    def tag(self) -> str:
        """Hash of the instructions, 16 hexadecimal digits; comparable within one kernel only."""
        return self._info.tag

    @property
    def type(self) -> ProgType | int:
        return self._info.type

    @property
    def was_loaded_here(self) -> bool:
        """Whether this process loaded it, and knows how."""
        return self._make_image is not None

    @cached_property
    def image(self) -> Image | None:
        """What it takes to load it again; None if this process did not load it.

        Raises:
            UsageError: it, or one of its maps, was closed before this was first asked for.
        """
        # Not made by the load: most programs are never loaded again.
        return None if self._make_image is None else self._make_image(self._info)

    def info(self) -> ProgramInfo:
        """Ask the kernel about it; run statistics are those of now."""
        return read_info(self._fd)

    def xlated(self) -> bytes:
        """Return the instructions as the verifier rewrote them, with map ids for maps.

        Empty when the kernel hides them (``kernel.kptr_restrict``, or without CAP_PERFMON).
        """
        return bpf.prog_xlated(self.fileno())

    def run(
        self,
        packet: bytes | None,
        *,
        repeat: int = 1,
        context: XdpContext | None = None,
        live: bool = False,
        batch_size: int = 0,
        cpu: int | None = None,
    ) -> RunResult:
        """Run it over a packet, without an interface.

        What the program does to its maps is real. With ``repeat``, each run gets the packet as the
        one before left it.

        Args:
            packet: from the Ethernet header on, at least 14 bytes; more than a page needs a program
                with frags support.
            repeat: how often.
            context: what the packet comes with; None: nothing, received by loopback.
            live: send ``repeat`` frames through the real receive path: XDP_TX and XDP_REDIRECT
                transmit, XDP_PASS enters the network stack. Nothing is returned.
            batch_size: live frames per batch, at most 256; 0: 64.
            cpu: where to run it; None: anywhere.

        Raises:
            UsageError: an argument makes no sense.
            KernelRefused: ENOTSUPP, programs of this type or bound to a device cannot be run;
                EINVAL, among others, an old kernel that knows no live frames or context.
        """
        return testrun.run(
            self.fileno(),
            self.type,
            packet,
            name=self.name,
            repeat=repeat,
            context=context,
            live=live,
            batch_size=batch_size,
            cpu=cpu,
        )

    def bind(self, bound: Map) -> None:
        """Make a map live as long as this program, and appear in its map ids.

        Linux 5.10.
        """
        bpf.prog_bind_map(self.fileno(), bound.fileno())

    def close(self) -> None:
        """Close the descriptor, and those of the maps that were made for the program."""
        self._fd.close()
        self._owned.close()

    def __repr__(self) -> str:
        kind = self.type.name if isinstance(self.type, ProgType) else self.type
        state = ", closed" if self._fd.closed else ""
        return f"<Program {self.name} ({kind}, id {self.id}{state})>"


def program_ids() -> Iterator[int]:
    """Yield the ids of all programs in the kernel.

    Raises:
        MissingPrivilege: without CAP_SYS_ADMIN.
    """
    return bpf.ids(ObjectKind.PROGRAM)


def read_info(fd: Fd) -> ProgramInfo:
    """Ask the kernel about a program."""
    info, map_ids = bpf.prog_info(fd.fileno())
    return ProgramInfo(
        id=info.id,
        name=info.name.decode("ascii", "replace"),
        type=ProgType(info.type) if info.type in _KNOWN_TYPES else info.type,
        tag=bytes(info.tag).hex(),
        jited_size=info.jited_prog_len,
        xlated_size=info.xlated_prog_len,
        load_time_ns=info.load_time,
        created_by_uid=info.created_by_uid,
        map_ids=map_ids,
        ifindex=info.ifindex,
        netns_ino=info.netns_ino,
        gpl_compatible=bool(info.gpl_compatible),
        btf_id=info.btf_id,
        run_time_ns=info.run_time_ns,
        run_count=info.run_cnt,
        recursion_misses=info.recursion_misses,
        verified_instructions=info.verified_insns,
        attach_btf_object_id=info.attach_btf_obj_id,
        attach_btf_id=info.attach_btf_id,
    )
