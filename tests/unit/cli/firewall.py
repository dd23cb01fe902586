# SPDX-License-Identifier: Apache-2.0
"""An object made by hand that has some of everything ``inspect`` shows: no compiler, no surprise.

In C it would be::

    struct flow { __u32 address; __u16 port; };
    enum policy { POLICY_OPEN, POLICY_CLOSED };

    struct { … PERCPU_ARRAY, 5 entries, __u32 → __u64 } hits SEC(".maps");
    struct { … HASH, 1024 entries, struct flow → __u64, NO_PREALLOC, pinned } flows SEC(".maps");

    const volatile __u16 blocked_port = 53;
    const volatile enum policy policy = POLICY_CLOSED;
    const volatile char label[8] = "edge";
    __u32 seen[2];                                             // .bss
    extern int CONFIG_HZ __kconfig __weak;

    SEC("xdp") int firewall(struct xdp_md *ctx) { … classify(ctx) … }
    SEC("xdp.frags/devmap") int egress(struct xdp_md *ctx) { … }
    SEC("classifier") int foreign(…)
"""

from __future__ import annotations

import struct

from tests.unit.obj.elf_writer import ElfWriter, MapTypes, returns
from xdpkit.btf import types as t
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import JmpOp, Register
from xdpkit.obj import elf
from xdpkit.uapi.bpf import MapFlags, MapType, XdpAction

_WEAK = 2
_SOURCE = "/src/fw.c"


def build(*, label: bytes = b"edge", program: str = "firewall") -> bytes:
    """Return the object file."""
    writer, described = ElfWriter(), MapTypes()
    _maps(writer, described)
    rodata = _variables(writer, described, label)
    functions = _code(writer, rodata, program)
    _externs(writer, described)
    writer.section("license", b"Dual BSD/GPL\0")
    ext = _debug_information(described, functions, program)
    writer.section(".BTF", described.builder.build())
    writer.section(".BTF.ext", ext)
    return writer.build()


def _maps(writer: ElfWriter, described: MapTypes) -> None:
    add = described.builder.add
    u16 = add(t.Int("unsigned short", 2, 16))
    names = {
        name: add(t.Typedef(name, type_id))
        for name, type_id in (("__u16", u16), ("__u32", described.u32), ("__u64", described.u64))
    }
    flow = add(
        t.Struct(
            "flow", 8, (t.Member("address", names["__u32"]), t.Member("port", names["__u16"], 32))
        )
    )
    hits = described.definition(
        type=described.number(MapType.PERCPU_ARRAY),
        key=add(t.Ptr(names["__u32"])),
        value=add(t.Ptr(names["__u64"])),
        max_entries=described.number(5),
    )
    flows = described.definition(
        type=described.number(MapType.HASH),
        key=add(t.Ptr(flow)),
        value=add(t.Ptr(names["__u64"])),
        max_entries=described.number(1024),
        map_flags=described.number(MapFlags.NO_PREALLOC),
        pinning=described.number(1),
    )
    described.datasec(".maps", ("hits", hits, 32), ("flows", flows, 48))
    section = writer.section(".maps", bytes(80))
    writer.symbol("hits", section, 0, 32, kind=elf.STT_OBJECT)
    writer.symbol("flows", section, 32, 48, kind=elf.STT_OBJECT)


def _variables(writer: ElfWriter, described: MapTypes, label: bytes) -> int:
    add = described.builder.add

    def constant(type_id: int) -> int:
        return add(t.Const(add(t.Volatile(type_id))))

    u16 = add(t.Typedef("__u16", add(t.Int("unsigned short", 2, 16))))
    policy = add(t.Enum("policy", 4, values=(("POLICY_OPEN", 0), ("POLICY_CLOSED", 1))))
    char = add(t.Int("char", 1, 8, encoding=t.IntEncoding.SIGNED))
    described.datasec(
        ".rodata",
        ("blocked_port", constant(u16), 2),
        ("policy", constant(policy), 4),
        ("label", add(t.Array(constant(char), described.u32, 8)), 8),
    )
    described.datasec(".bss", ("seen", add(t.Array(described.u32, described.u32, 2)), 8))
    rodata = writer.section(".rodata", struct.pack("<HHI8s", 53, 0, 1, label))
    for name, offset, size in (("blocked_port", 0, 2), ("policy", 4, 4), ("label", 8, 8)):
        writer.symbol(name, rodata, offset, size, kind=elf.STT_OBJECT)
    bss = writer.section(".bss", kind=elf.SHT_NOBITS, size=8)
    writer.symbol("seen", bss, 0, 8, kind=elf.STT_OBJECT)
    return rodata


def _code(writer: ElfWriter, rodata: int, program: str) -> dict[str, list[Instruction]]:
    symbols = {symbol[0]: number + 1 for number, symbol in enumerate(writer.symbols)}
    firewall = [
        asm.ld_imm64(Register.R6, 0),  # slot 0: hits
        asm.ld_imm64(Register.R7, 0),  # slot 2: blocked_port
        asm.call_subprogram(-1),  # slot 4: classify
        asm.branch(JmpOp.JEQ, Register.R0, 0, 1),
        asm.mov(Register.R0, int(XdpAction.DROP)),
        asm.exit(),
    ]
    classify = [asm.load(Register.R0, Register.R1, 16, size=4), asm.exit()]
    text = writer.code(".text", classify)
    called = writer.function("classify", text, 0, 2)
    main = writer.code("xdp", firewall)
    writer.function(program, main, 0, 8)
    writer.relocate(main, 0, symbols["hits"])
    writer.relocate(main, 16, symbols["blocked_port"])
    writer.relocate(main, 32, called)
    egress = writer.code("xdp.frags/devmap", returns(int(XdpAction.PASS)))
    writer.function("egress", egress, 0, 2)
    foreign = writer.code("classifier", returns(0))
    writer.function("foreign", foreign, 0, 2)
    return {"xdp": firewall, ".text": classify}


def _externs(writer: ElfWriter, described: MapTypes) -> None:
    number = described.builder.add(t.Int("int", 4, 32, encoding=t.IntEncoding.SIGNED))
    described.datasec(".kconfig", ("CONFIG_HZ", number, 4), linkage=t.VarLinkage.EXTERN)
    writer.symbol("CONFIG_HZ", bind=_WEAK)


def _debug_information(
    described: MapTypes, functions: dict[str, list[Instruction]], program: str
) -> bytes:
    builder = described.builder
    context = builder.add(t.Ptr(builder.add(t.Struct("xdp_md", 24))))
    number = builder.add(t.Int("int", 4, 32, encoding=t.IntEncoding.SIGNED))
    prototype = builder.add(t.FuncProto(number, (t.Param("ctx", context),)))
    main = builder.add(t.Func(program, prototype, t.FuncLinkage.GLOBAL))
    classify = builder.add(t.Func("classify", prototype, t.FuncLinkage.GLOBAL))
    assert set(functions) == {"xdp", ".text"}
    source = builder.string(_SOURCE)

    def line(offset: int, text: str, number: int, column: int = 1) -> bytes:
        return struct.pack("<4I", offset, source, builder.string(text), number << 10 | column)

    func_info = _list(8, {"xdp": [struct.pack("<2I", 0, main)],
                          ".text": [struct.pack("<2I", 0, classify)]}, described)  # fmt: skip
    line_info = _list(
        16,
        {
            "xdp": [
                line(0, "\t__u64 *packets = lookup(&hits);", 21, 3),
                line(16, "\t__u64 *packets = lookup(&hits);", 21, 9),
                line(32, "\tif (classify(ctx))", 22),
                line(48, "\t\treturn XDP_DROP;", 23),
            ],
            ".text": [line(0, "\treturn ctx->rx_queue_index;", 12)],
        },
        described,
    )
    header = struct.pack("<HBBIIIIIII", 0xEB9F, 1, 0, 32, 0, len(func_info), len(func_info),
                         len(line_info), len(func_info) + len(line_info), 0)  # fmt: skip
    return header + func_info + line_info


def _list(record_size: int, records: dict[str, list[bytes]], described: MapTypes) -> bytes:
    return struct.pack("<I", record_size) + b"".join(
        struct.pack("<II", described.builder.string(section), len(found)) + b"".join(found)
        for section, found in records.items()
    )
