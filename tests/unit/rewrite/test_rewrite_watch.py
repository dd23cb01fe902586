# SPDX-License-Identifier: Apache-2.0
"""The program that counts what another one returns: it runs here, over made-up structures."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpkit.btf import Btf
from xdpkit.btf.builder import BtfBuilder
from xdpkit.btf.types import Int, Member, Ptr, Struct, Typedef
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.isa import Instruction, decode, iter_slots
from xdpkit.isa.opcodes import LD_IMM64, AluOp, Class, JmpOp, Register, Source
from xdpkit.probes.ask import BYTEORDER
from xdpkit.rewrite import Counting, Counts, Layout, value_size, watching
from xdpkit.uapi.helpers import HELPERS

INDEX, INODE = 7, 0xF0000123
MAP = 1 << 40  # where the value is in the made-up memory
STACK = 1 << 20

offsets = st.integers(0, 4095).map(lambda number: 8 * number)
LAYOUT = Layout(0, 8, 16, 24, 32, 40, 48, 56)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Draw a layout in which nothing lies on anything else."""
    return Layout(*draw(st.lists(offsets, min_size=8, max_size=8, unique=True)))


def placed(made: Counting) -> dict[int, Instruction]:
    return dict(iter_slots(decode(made.body.code, byteorder=BYTEORDER)))


class Machine:
    """Runs a program over a packet's structures: one look-up, and what it does with it."""

    XDP, RXQ, DEVICE, NET, CONTEXT = (number << 24 for number in range(1, 6))

    def __init__(
        self,
        layout: Layout,
        *,
        returned: int,
        queue: int = 0,
        length: int = 60,
        ifindex: int = INDEX,
        inode: int = INODE,
    ) -> None:
        self.entry: int | None = None
        self.memory = {
            self.CONTEXT: self.XDP,
            self.CONTEXT + 8: returned,
            self.XDP + layout.rxq: self.RXQ,
            self.XDP + layout.data: 1000,
            self.XDP + layout.data_end: 1000 + length,
            self.RXQ + layout.dev: self.DEVICE,
            self.RXQ + layout.queue_index: queue,
            self.DEVICE + layout.ifindex: ifindex,
            self.DEVICE + layout.net: self.NET,
            self.NET + layout.inum: inode,
        }

    def run(self, made: Counting, *, entries: int) -> tuple[int | None, Counts]:
        """Return which entry was counted in, and what is there then."""
        code = placed(made)
        registers = {Register.R1: self.CONTEXT, Register.R10: STACK}
        slot = 0
        while True:
            step = code[slot]
            slot += step.slots
            dst = Register(step.dst)
            operand = (
                registers.get(Register(step.src), 0)
                if step.opcode & Source.X
                else step.imm & 0xFFFFFFFFFFFFFFFF
            )
            kind, op = step.opcode & 7, step.opcode & 0xF0
            if step.opcode == LD_IMM64:
                registers[dst] = MAP
            elif step.is_call:
                assert step.imm == HELPERS.index("map_lookup_elem")
                assert registers[Register.R1] == MAP
                self.entry = self.memory[registers[Register.R2]]
                assert self.entry < entries
                # Nothing of what a helper may change is used after it.
                registers = {each: registers[each] for each in registers if each > Register.R5}
                registers[Register.R0] = MAP
            elif step.is_exit:
                assert registers[Register.R0] == 0
                return self.entry, self.counts()
            elif kind in (Class.JMP, Class.JMP32):
                left = registers[dst]
                taken = {
                    JmpOp.JEQ: left == operand,
                    JmpOp.JNE: left != operand,
                    JmpOp.JLE: left <= operand,
                }[JmpOp(op)]
                slot += step.offset if taken else 0
            elif kind == Class.LDX:
                at = registers[Register(step.src)] + step.offset
                registers[dst] = self.memory.get(at, 0) if at >= MAP else self.memory[at]
            elif kind == Class.STX:
                self.memory[registers[dst] + step.offset] = registers[Register(step.src)]
            else:
                registers[dst] = {
                    AluOp.MOV: operand,
                    AluOp.ADD: registers.get(dst, 0) + operand,
                    AluOp.SUB: registers.get(dst, 0) - operand,
                    AluOp.LSH: registers.get(dst, 0) << (operand & 63),
                }[AluOp(op)] & (0xFFFFFFFF if kind == Class.ALU else (1 << 64) - 1)

    def counts(self) -> Counts:
        size = value_size(count_bytes=True)
        value = [self.memory.get(MAP + at, 0) for at in range(0, size, 8)]
        return Counts.read([struct.pack(f"={size // 8}Q", *value)])


@settings(max_examples=300)
@given(
    layouts(),
    st.integers(1, 5000),
    st.integers(0, 6000),
    st.one_of(st.integers(0, 6), st.integers(0, (1 << 64) - 1)),
    st.integers(0, 9000),
    st.booleans(),
)
def test_an_action_is_counted_once_in_the_entry_of_its_queue(
    layout: Layout, entries: int, queue: int, returned: int, length: int, count_bytes: bool
) -> None:
    made = watching(
        layout, entries=entries, ifindex=INDEX, netns_inode=INODE, count_bytes=count_bytes
    )
    machine = Machine(layout, returned=returned, queue=queue, length=length)
    entry, counts = machine.run(made, entries=entries)
    assert entry == min(queue, entries - 1)
    # Only the low 32 bits are the action; what is none is counted apart.
    action = min(returned & 0xFFFFFFFF, 5)
    assert counts.packets == tuple(int(number == action) for number in range(6))
    expected = length if count_bytes else 0
    assert counts.bytes == tuple(expected * (number == action) for number in range(6))


@settings(max_examples=300)
@given(
    layouts(),
    st.integers(1, (1 << 31) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(1, (1 << 31) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 2),
)
def test_packets_of_other_interfaces_are_not_counted(
    layout: Layout, ifindex: int, inode: int, other_index: int, other_inode: int, alike: int
) -> None:
    other_index = ifindex if alike == 1 else other_index
    other_inode = inode if alike == 2 else other_inode
    made = watching(layout, entries=1, ifindex=ifindex, netns_inode=inode)
    for index, number in ((ifindex, inode), (other_index, other_inode)):
        machine = Machine(layout, returned=1, ifindex=index, inode=number)
        is_its_own = (index, number) == (ifindex, inode)
        assert machine.run(made, entries=1)[0] == (0 if is_its_own else None)


@given(layouts(), st.integers(1, 5000), st.booleans())
def test_each_program_is_well_formed(layout: Layout, entries: int, count_bytes: bool) -> None:
    made = watching(
        layout, entries=entries, ifindex=INDEX, netns_inode=INODE, count_bytes=count_bytes
    )
    code = placed(made)
    assert all(instruction.is_known for instruction in code.values())
    assert [slot for slot, each in code.items() if each.opcode == LD_IMM64] == [*made.map_slots]
    ends = [slot for slot, each in code.items() if each.is_exit]
    assert ends == [max(code)]
    for slot, each in code.items():
        if each.is_jump:
            # Forward, and to an instruction: the verifier sees no loop.
            target = each.target(slot)
            assert target is not None
            assert target in code
            assert target > slot
    assert (made.body.func_info, made.body.line_info) == (b"", b"")


@pytest.mark.parametrize(
    ("entries", "ifindex", "inode"),
    [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1 << 31, 1), (1, 1, -1), (1, 1, 1 << 32)],
)
def test_numbers_that_make_no_sense_are_refused(entries: int, ifindex: int, inode: int) -> None:
    with pytest.raises(UsageError) as refused:
        watching(LAYOUT, entries=entries, ifindex=ifindex, netns_inode=inode)
    assert str(refused.value) == (
        "count what a program returns from outside: the entries, the interface or its namespace"
        " make no sense"
    )


STRUCTURES: dict[str, tuple[str, ...]] = {
    "xdp_buff": ("data", "data_end", "rxq"),
    "xdp_rxq_info": ("dev", "queue_index"),
    "net_device": ("ifindex", "nd_net"),
    "net": ("ns",),
    "possible_net": ("net",),
    "ns_common": ("ops", "inum"),
}


def kernel(without: str = "nothing") -> Btf:
    """Return types as a kernel has them, but one member; what is in a device has no name."""
    builder = BtfBuilder(byteorder=BYTEORDER)
    number = builder.add(Int("long", 8, 64))
    pointer = builder.add(Ptr(0))
    inner: dict[str, int] = {}
    for name in ("possible_net", "ns_common"):
        inner[name] = add(builder, name, [(each, number) for each in STRUCTURES[name]], without)
    inner["possible_net"] = builder.add(Typedef("possible_net_t", inner["possible_net"]))
    own = {"nd_net": inner["possible_net"], "ns": inner["ns_common"]}
    unnamed = add(builder, "", [("ifindex", number)], without)
    for name in ("xdp_buff", "xdp_rxq_info", "net"):
        members = [(each, own.get(each, pointer)) for each in STRUCTURES[name]]
        add(builder, name, members, without)
    device = [("first", number), ("", unnamed), ("nd_net", own["nd_net"])]
    add(builder, "net_device", device, without)
    return Btf.parse(builder.build())


def add(builder: BtfBuilder, name: str, members: list[tuple[str, int]], without: str) -> int:
    placed = [
        Member(member if member != without else "another", type_id, 128 * at)
        for at, (member, type_id) in enumerate(members)
    ]
    return builder.add(Struct(name, 16 * len(members), tuple(placed)))


def test_a_kernels_layout_is_found_in_structures_without_a_name_and_behind_typedefs() -> None:
    assert Layout.find(kernel()) == Layout(
        rxq=32, data=0, data_end=16, dev=0, queue_index=16, ifindex=16, net=32, inum=16
    )


@pytest.mark.parametrize(
    ("without", "cause"),
    [
        ("rxq", "rxq in struct xdp_buff"),
        ("ifindex", "ifindex in struct net_device"),
        ("net", "nd_net.net in struct net_device"),
        ("inum", "ns.inum in struct net"),
    ],
)
def test_a_kernel_whose_types_lack_a_member_is_refused(without: str, cause: str) -> None:
    with pytest.raises(RequirementUnmet) as refused:
        Layout.find(kernel(without))
    assert refused.value.cause == f"the kernel's types have no {cause}"
