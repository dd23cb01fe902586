# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.obj.elf_writer import ElfWriter, MapTypes, returns, simple
from xdpkit.btf import Btf, types
from xdpkit.btf.types import Kind
from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.obj import ExternKind, Pinning, elf, kernel_btf, read
from xdpkit.uapi.bpf import AttachType, MapFlags, MapType, ProgFlags, ProgType


def with_btf(writer: ElfWriter, described: MapTypes) -> bytes:
    writer.section(".BTF", described.builder.build())
    return writer.build()


def with_map(**attributes: int) -> tuple[ElfWriter, MapTypes]:
    """A file with one map, ``m``; numbers are given as they are, types as negative ids."""
    described = MapTypes()
    members = {
        name: described.builder.add(types.Ptr(-value)) if value < 0 else described.number(value)
        for name, value in attributes.items()
    }
    struct = described.definition(**members)
    described.datasec(".maps", ("m", struct, 8 * len(members)))
    writer = simple()
    maps = writer.section(".maps", bytes(8 * len(members)))
    writer.symbol("m", maps, 0, 8 * len(members), kind=elf.STT_OBJECT)
    return writer, described


@pytest.mark.parametrize(
    ("section", "type_", "attach_type", "flags", "attach_to"),
    [
        ("xdp", ProgType.XDP, AttachType.XDP, 0, None),
        ("xdp.frags", ProgType.XDP, AttachType.XDP, ProgFlags.XDP_HAS_FRAGS, None),
        ("xdp/devmap", ProgType.XDP, AttachType.XDP_DEVMAP, 0, None),
        ("xdp.frags/devmap", ProgType.XDP, AttachType.XDP_DEVMAP, ProgFlags.XDP_HAS_FRAGS, None),
        ("xdp/cpumap", ProgType.XDP, AttachType.XDP_CPUMAP, 0, None),
        ("xdp.frags/cpumap", ProgType.XDP, AttachType.XDP_CPUMAP, ProgFlags.XDP_HAS_FRAGS, None),
        ("tp_btf/xdp_exception", ProgType.TRACING, AttachType.TRACE_RAW_TP, 0, "xdp_exception"),
        ("raw_tp/xdp_exception", ProgType.RAW_TRACEPOINT, 0, 0, "xdp_exception"),
    ],
)
def test_the_section_says_what_a_program_is(
    section: str, type_: ProgType, attach_type: int, flags: int, attach_to: str | None
) -> None:
    spec = read(simple(section=section).build()).programs["prog"]
    assert (spec.type, spec.attach_type, spec.flags, spec.attach_to) == (
        type_, attach_type, flags, attach_to,
    )  # fmt: skip


@pytest.mark.parametrize("section", ["kprobe/x", "classifier", "tp_btf/", "xdp_old", "xdp/other"])
def test_sections_of_other_kinds_are_listed_and_left_alone(section: str) -> None:
    obj = read(simple(section=section).build())
    assert (dict(obj.programs), obj.skipped) == ({}, (section,))


def test_a_question_mark_means_load_when_asked_for() -> None:
    assert [p.autoload for p in read(simple(section="?xdp").build()).programs.values()] == [False]


def test_licence_version_and_name_are_read(tmp_path: Path) -> None:
    writer = simple()
    writer.section("version", (0x60102).to_bytes(4, "little"))
    path = tmp_path / "a_rather_long_name.bpf.o"
    path.write_bytes(writer.build())
    obj = read(path)
    assert (obj.license, obj.version, obj.name, obj.path) == (
        "GPL",
        0x60102,
        "a_rather_long_n",
        str(path),
    )


def test_a_map_has_all_its_attributes() -> None:
    writer, described = with_map(
        type=MapType.HASH, key=-1, value=-2, max_entries=7, map_flags=1, numa_node=0, pinning=1
    )
    spec = read(with_btf(writer, described), name="f.o").maps["m"]
    assert (spec.type, spec.key_size, spec.value_size, spec.max_entries) == (MapType.HASH, 4, 8, 7)
    assert (spec.key_type_id, spec.value_type_id) == (described.u32, described.u64)
    assert (spec.flags, spec.numa_node, spec.pinning) == (MapFlags.NO_PREALLOC, 0, Pinning.BY_NAME)


@pytest.mark.parametrize(
    ("attributes", "cause"),
    [
        ({"max_entries": 1}, "map m has no type"),
        ({"type": 1, "colour": 1}, "map m has an unknown attribute 'colour'"),
        ({"type": -1}, "map m: type is not a number"),
        ({"type": 1, "key": 4}, None),
        ({"type": 1, "key_size": 8, "key": -1}, "map m: key and its size differ"),
        ({"type": 1, "pinning": 2}, "map m: pinning is 2"),
        ({"type": 1, "values": 1}, "map m: values is for maps of maps and program arrays"),
    ],
)
def test_a_wrong_map_definition_is_refused_by_name(
    attributes: dict[str, int], cause: str | None
) -> None:
    data = with_btf(*with_map(**attributes))
    if cause is None:
        assert read(data).maps["m"].key_size == 16
        return
    with pytest.raises(ObjectFormatError, match=cause) as caught:
        read(data, name="f.o")
    assert (caught.value.file, caught.value.section) == ("f.o", ".maps")


def test_maps_without_type_information_ask_for_it() -> None:
    writer, _ = with_map(type=1)
    with pytest.raises(ObjectFormatError, match="has no BTF\nRemedy: compile with -g"):
        read(writer.build())


def test_initial_values_of_a_program_array_are_names() -> None:
    described = MapTypes()
    function = described.builder.add(types.FuncProto(0))
    pointer = described.builder.add(types.Ptr(function))
    values = described.builder.add(types.Array(pointer, described.u32, 0))
    struct = described.definition(
        type=described.number(MapType.PROG_ARRAY), key=described.builder.add(types.Ptr(1)),
        max_entries=described.number(4), values=values,
    )  # fmt: skip
    described.datasec(".maps", ("jumps", struct, 24 + 32))
    writer = simple()
    maps = writer.section(".maps", bytes(56))
    writer.symbol("jumps", maps, 0, 56, kind=elf.STT_OBJECT)
    writer.relocate(maps, 24 + 16, 1)
    spec = read(with_btf(writer, described)).maps["jumps"]
    assert (spec.values, spec.value_size, spec.inner) == ({2: "prog"}, 4, None)


def test_the_template_of_a_map_of_maps_is_read() -> None:
    described = MapTypes()
    inner = described.definition(type=described.number(2), max_entries=described.number(9))
    pointer = described.builder.add(types.Ptr(inner))
    values = described.builder.add(types.Array(pointer, described.u32, 0))
    struct = described.definition(type=described.number(MapType.ARRAY_OF_MAPS), values=values)
    described.datasec(".maps", ("outer", struct, 16))
    writer = simple()
    maps = writer.section(".maps", bytes(16))
    writer.symbol("outer", maps, 0, 16, kind=elf.STT_OBJECT)
    spec = read(with_btf(writer, described)).maps["outer"].inner
    assert spec is not None
    assert (spec.name, spec.type, spec.max_entries) == ("outer.inner", MapType.ARRAY, 9)


def with_data(section: str = ".rodata", kind: int = elf.SHT_PROGBITS) -> bytes:
    described = MapTypes()
    described.datasec(section, ("second", described.u64, 8), ("first", described.u32, 4))
    writer = simple()
    data = bytes(range(16)) if kind == elf.SHT_PROGBITS else b""
    index = writer.section(section, data, kind=kind, size=16)
    writer.symbol("first", index, 0, 4, kind=elf.STT_OBJECT)
    writer.symbol("second", index, 8, 8, kind=elf.STT_OBJECT)
    writer.symbol("untyped", index, 4, 4, kind=elf.STT_OBJECT)
    return with_btf(writer, described)


def test_variables_are_read_and_set_by_name() -> None:
    obj = read(with_data())
    assert dict(obj.variables) == {
        "first": 0x03020100, "second": 0x0F0E0D0C0B0A0908, "untyped": bytes((4, 5, 6, 7)),
    }  # fmt: skip
    obj.variables["first"] = 53
    obj.variables["untyped"] = b"abcd"
    assert obj.variables["first"] == 53
    assert obj.variables.data(".rodata") == b"\x35\0\0\0abcd" + bytes(range(8, 16))


def test_variables_of_zeros_can_be_set() -> None:
    obj = read(with_data(".bss", elf.SHT_NOBITS))
    obj.variables["second"] = 1
    assert obj.variables.data(".bss") == bytes(8) + b"\1" + bytes(7)


def test_a_variable_larger_than_its_type_is_bytes() -> None:
    described = MapTypes()
    described.datasec(".data", ("flexible", described.u32, 8))
    writer = simple()
    index = writer.section(".data", bytes(range(8)))
    writer.symbol("flexible", index, 0, 8, kind=elf.STT_OBJECT)
    assert dict(read(with_btf(writer, described)).variables) == {"flexible": bytes(range(8))}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("first", 1 << 32, "set variable first to 4294967296"),
        ("first", "x", "set variable first to 'x'"),
        ("untyped", 1, "its type is not known; give 4 bytes"),
        (
            "absent",
            1,
            "find variable 'absent' in f.o: it has these global variables: first, second",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_changes_nothing(
    name: str, value: object, text: str
) -> None:
    obj = read(with_data(), name="f.o")
    with pytest.raises(UsageError, match=text):
        obj.variables[name] = value
    assert obj.variables.data(".rodata") == bytes(range(16))


def test_two_objects_from_one_file_do_not_share_variables() -> None:
    data = with_data()
    one, other = read(data), read(data)
    one.variables["first"] = 1
    assert other.variables["first"] != 1


@pytest.mark.parametrize(
    ("section", "kind", "flags", "name"),
    [
        (".rodata", elf.SHT_PROGBITS, MapFlags.RDONLY_PROG | MapFlags.MMAPABLE, "firewall.rodata"),
        (".data", elf.SHT_PROGBITS, MapFlags.MMAPABLE, "firewall.data"),
        (".bss", elf.SHT_NOBITS, MapFlags.MMAPABLE, "firewall.bss"),
        (".data.custom", elf.SHT_PROGBITS, MapFlags.MMAPABLE, ".data.custom"),
    ],
)
def test_global_data_becomes_a_map_named_as_libbpf_does(
    section: str, kind: int, flags: MapFlags, name: str
) -> None:
    spec = read(with_data(section, kind), name="firewall_of_ours.o").maps[section]
    assert (spec.kernel_name, spec.flags, spec.value_size) == (name, flags, 16)
    assert (spec.data_section, spec.is_frozen) == (section, section == ".rodata")


def test_the_kernel_gets_sections_with_sizes_and_variables_in_order() -> None:
    raw = kernel_btf(read(with_data()))
    assert raw is not None
    btf = Btf.parse(raw)
    btf.validate()
    datasec = btf[btf.find(".rodata", Kind.DATASEC)[0]]
    assert isinstance(datasec, types.Datasec)
    assert datasec.size == 16
    assert [(btf.name(v.type_id), v.offset) for v in datasec.vars] == [("first", 0), ("second", 8)]


def with_context(name: str) -> tuple[ElfWriter, MapTypes]:
    described = MapTypes()
    context = types.Struct(name, 4, (types.Member("data", described.u32, 0),))
    described.builder.add(types.Ptr(described.builder.add(context)))
    return simple(), described


def test_the_kernel_is_told_that_our_context_is_its_own() -> None:
    obj = read(with_btf(*with_context("xdpkit_md")))
    raw = kernel_btf(obj)
    assert raw is not None
    assert obj.btf is not None
    (number,) = obj.btf.find("xdpkit_md", Kind.STRUCT)
    ours = obj.btf[number]
    assert isinstance(ours, types.Struct)
    btf = Btf.parse(raw)
    btf.validate()
    assert not btf.find("xdpkit_md", Kind.STRUCT)
    assert btf[number] == replace(ours, name="xdp_md")


def test_the_kernel_gets_types_without_our_context_as_they_are() -> None:
    writer, described = with_context("other_md")
    assert kernel_btf(read(with_btf(writer, described))) == described.builder.build()


def with_externs() -> tuple[ElfWriter, MapTypes]:
    described = MapTypes()
    char = described.builder.add(types.Int("char", 1, 8))
    proto = described.builder.add(types.FuncProto(described.u32, (types.Param("", 1),)))
    func = described.builder.add(types.Func("bpf_thing___v2", proto, 2))
    void = described.builder.add(types.Const(0))
    var = described.builder.add(types.Var("init_task", void, 2))
    entries = (types.SectionVar(func, 0, 0), types.SectionVar(var, 0, 0))
    described.builder.add(types.Datasec(".ksyms", 0, entries))
    described.datasec(".kconfig", ("CONFIG_A", char, 1), ("CONFIG_B", described.u64, 8), linkage=2)
    writer = ElfWriter()
    instructions = [
        *(asm.ld_imm64(Register.R1, 0) for _ in range(3)), asm.call_kfunc(-1), *returns(2)
    ]  # fmt: skip
    code = writer.code("xdp", instructions)
    writer.function("prog", code, 0, sum(i.slots for i in instructions))
    for offset, name, bind in (
        (0, "CONFIG_A", 2), (16, "CONFIG_B", 1), (32, "init_task", 2), (48, "bpf_thing___v2", 1)
    ):  # fmt: skip
        writer.relocate(code, offset, writer.symbol(name, bind=bind))
    return writer, described


def test_externs_say_what_the_kernel_must_provide() -> None:
    obj = read(with_btf(*with_externs()))
    found = {e.name: (e.kind, e.kernel_name, e.is_weak) for e in obj.externs.values()}
    assert found == {
        "bpf_thing___v2": (ExternKind.KFUNC, "bpf_thing", False),
        "init_task": (ExternKind.KSYM, "init_task", True),
        "CONFIG_A": (ExternKind.KCONFIG, "CONFIG_A", True),
        "CONFIG_B": (ExternKind.KCONFIG, "CONFIG_B", False),
    }
    # The larger alignment comes first, as libbpf packs them.
    assert (obj.externs["CONFIG_B"].offset, obj.externs["CONFIG_A"].offset) == (0, 8)
    assert obj.maps[".kconfig"].value_size == 9
    relocations = {
        (r.kind.value, r.name, r.offset) for r in obj.programs["prog"].link().relocations
    }
    assert relocations == {
        ("map-value", ".kconfig", 8), ("map-value", ".kconfig", 0),
        ("ksym", "init_task", 0), ("kfunc", "bpf_thing___v2", 0),
    }  # fmt: skip


def test_a_kconfig_extern_of_gigabytes_is_refused() -> None:
    writer, described = with_externs()
    huge = described.builder.add(types.Array(described.u64, described.u32, 0x1FFFFFFF))
    described.datasec(".kconfig", ("CONFIG_C", huge, 8), linkage=2)
    writer.symbol("CONFIG_C")
    with pytest.raises(ObjectFormatError, match=r"CONFIG_C makes the \.kconfig map 4294967296"):
        read(with_btf(writer, described))


def test_the_kernel_gets_externs_as_ordinary_variables_and_functions() -> None:
    raw = kernel_btf(read(with_btf(*with_externs())))
    assert raw is not None
    btf = Btf.parse(raw)
    btf.validate()
    ksyms = btf[btf.find(".ksyms", Kind.DATASEC)[0]]
    assert isinstance(ksyms, types.Datasec)
    assert [btf.kind(entry.type_id) for entry in ksyms.vars] == [Kind.VAR, Kind.VAR]
    function = btf[btf.find("bpf_thing___v2", Kind.FUNC)[0]]
    assert isinstance(function, types.Func)
    prototype = btf[function.type_id]
    assert isinstance(prototype, types.FuncProto)
    assert [param.name for param in prototype.params] == ["arg"]


@pytest.mark.parametrize(
    ("path", "cause"),
    [("/nonexistent/f.o", "No such file"), ("/", "Is a directory"), ("a\0b", "null byte")],
)
def test_a_file_that_cannot_be_read_is_the_callers_mistake(path: str, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        read(path)
