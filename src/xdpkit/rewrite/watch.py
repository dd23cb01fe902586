# SPDX-License-Identifier: Apache-2.0
"""Counting what a program returns from outside, where its instructions are not to be had.

The kernel runs another program each time the main function of the one that is watched has returned
(``BPF_TRACE_FEXIT``, Linux 5.5, 5b92a28aae4d "bpf: Support attaching tracing BPF program to other
BPF programs"). It is given what that one was called with and what it returned, and counts in a map
as programs that count themselves do (:mod:`xdpkit.rewrite.count`).

What a program tail-calls returns to where it was called itself, so that is counted as its own.

**Whose packets.** A program can be on several interfaces at once. Counted are the packets of one
of them: that of the RX queue by which a packet came (``xdp_rxq_info``), in its network namespace.

**The length** is ``data_end`` - ``data`` as the program left it: after it has added or removed
headers, and of a packet in fragments the first fragment only.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdpkit.btf import Btf, Kind
from xdpkit.btf.types import Struct, Union
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.rewrite.body import Code, Function, Step
from xdpkit.rewrite.count import Counting, value_size
from xdpkit.uapi.bpf import XdpAction

R0, R1, R2, R3, R6, R7, R8, R10 = (
    Register.R0,
    Register.R1,
    Register.R2,
    Register.R3,
    Register.R6,
    Register.R7,
    Register.R8,
    Register.R10,
)

WATCH_LICENSE = "Dual BSD/GPL"
"""What is made here is free under either licence.

The kernel lets no other program look into its structures (``check_ptr_to_btf_access()``).
"""

_WHAT = "count what a program returns from outside"
# What the kernel gives a program that watches a function of one argument: struct xdp_md *, which
# is a struct xdp_buff * there, and what it returned.
ARGUMENT, RETURNED = 0, 8
_QUEUE = -4  # where it is on the stack
_LAST_ACTION = max(XdpAction)
_BYTES = value_size(count_bytes=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a running kernel has what is needed, in bytes from the beginning of each structure.

    Attributes:
        rxq, data, data_end: in ``struct xdp_buff``.
        dev, queue_index: in ``struct xdp_rxq_info``.
        ifindex, net: in ``struct net_device``: its index, and the pointer to its namespace.
        inum: in ``struct net``: the inode number of the namespace.
    """

    rxq: int
    data: int
    data_end: int
    dev: int
    queue_index: int
    ifindex: int
    net: int
    inum: int

    @classmethod
    def find(cls, kernel: Btf) -> Layout:
        """Return the layout that a kernel's own types say.

        Raises:
            RequirementUnmet: they do not have it.
            ObjectFormatError: they contradict themselves.
        """

        def offset(struct: str, *path: str) -> int:
            for type_id in kernel.find(struct, Kind.STRUCT):
                found = _offset(kernel, type_id, path)
                if found is not None:
                    return found
            raise RequirementUnmet(
                _WHAT, cause=f"the kernel's types have no {'.'.join(path)} in struct {struct}"
            )

        return cls(
            rxq=offset("xdp_buff", "rxq"),
            data=offset("xdp_buff", "data"),
            data_end=offset("xdp_buff", "data_end"),
            dev=offset("xdp_rxq_info", "dev"),
            queue_index=offset("xdp_rxq_info", "queue_index"),
            ifindex=offset("net_device", "ifindex"),
            net=offset("net_device", "nd_net", "net"),
            inum=offset("net", "ns", "inum"),
        )


def watching(
    layout: Layout, *, entries: int, ifindex: int, netns_inode: int, count_bytes: bool = False
) -> Counting:
    """Return a program that counts what another one returns for an interface's packets.

    Args:
        layout: of the kernel that is to run it.
        entries: how many entries the map has, one for each RX queue. The last one also counts for
            the queues beyond it.
        ifindex: the interface.
        netns_inode: its network namespace, by the inode number of the namespace's file.
        count_bytes: whether bytes are counted too.

    Raises:
        UsageError: a number is out of range.
    """
    if entries < 1 or not 0 < ifindex < 1 << 31 or not 0 <= netns_inode < 1 << 32:
        raise UsageError(_WHAT, cause="the entries, the interface or its namespace make no sense")
    # What a program of this kind returns has no meaning, but must be 0.
    leave = Step(asm.mov(R0, 0))
    keep = Step(asm.store(R10, _QUEUE, R2, size=4))
    add = Step(asm.alu(AluOp.LSH, R1, 3))
    counters = Step(asm.ld_imm64(R1, 0))
    steps = [
        *_plain(
            asm.load(R6, R1, ARGUMENT),
            asm.load(R7, R1, RETURNED),
            asm.load(R8, R6, layout.rxq),
            asm.load(R2, R8, layout.dev),
            asm.load(R3, R2, layout.ifindex, size=4),
        ),
        Step(asm.branch(JmpOp.JNE, R3, ifindex, 0), leave),
        *_plain(
            asm.load(R2, R2, layout.net),
            asm.load(R2, R2, layout.inum, size=4),
            # An immediate would be extended by its sign.
            asm.mov(R3, netns_inode, width=32),
        ),
        Step(asm.branch(JmpOp.JNE, R2, R3, 0), leave),
        Step(asm.load(R2, R8, layout.queue_index, size=4)),
        Step(asm.branch(JmpOp.JLE, R2, entries - 1, 0), keep),
        Step(asm.mov(R2, entries - 1)),
        keep,
        *_plain(asm.mov(R2, R10), asm.alu(AluOp.ADD, R2, _QUEUE)),
        counters,
        Step(asm.call("map_lookup_elem")),
        Step(asm.branch(JmpOp.JEQ, R0, 0, 0), leave),
        # Only the low 32 bits are the action.
        Step(asm.mov(R1, R7, width=32)),
        Step(asm.branch(JmpOp.JLE, R1, _LAST_ACTION, 0), add),
        Step(asm.mov(R1, _LAST_ACTION + 1)),
        add,
        Step(asm.alu(AluOp.ADD, R0, R1)),
        # XDP runs with soft interrupts off: nobody else counts on this CPU meanwhile.
        *_plain(asm.load(R1, R0), asm.alu(AluOp.ADD, R1, 1), asm.store(R0, 0, R1)),
    ]
    if count_bytes:
        steps += _plain(
            asm.load(R1, R6, layout.data_end),
            asm.load(R2, R6, layout.data),
            asm.alu(AluOp.SUB, R1, R2),
            asm.load(R2, R0, _BYTES),
            asm.alu(AluOp.ADD, R2, R1),
            asm.store(R0, _BYTES, R2),
        )
    code = Code([Function(0, [*steps, leave, Step(asm.exit())])])
    return Counting(code.body(what=_WHAT), code.slots_of([counters]))


def _plain(*instructions: Instruction) -> list[Step]:
    return [Step(instruction) for instruction in instructions]


def _offset(types: Btf, type_id: int, path: tuple[str, ...]) -> int | None:
    """Return where a member of a member is, looking into what has no name; None: nowhere."""
    struct = types[types.strip(type_id)]
    if not isinstance(struct, Struct | Union):
        return None
    for member in struct.members:
        rest = path[1:] if member.name == path[0] else path
        if member.name not in ("", path[0]):
            continue
        inner = 0 if not rest else _offset(types, member.type_id, rest)
        if inner is not None:
            return member.bit_offset // 8 + inner
    return None
