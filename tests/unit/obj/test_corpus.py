# SPDX-License-Identifier: Apache-2.0
"""What is read from real objects, without a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from xdpkit.obj.spec import ExternKind, Object, Pinning, RelocationKind
from xdpkit.uapi.bpf import AttachType, MapFlags, MapType, ProgFlags, ProgType

COMPILERS = [pytest.param(compiler, id=compiler.name) for compiler in build.compilers()]
CLANGS = [
    pytest.param(compiler, id=compiler.name)
    for compiler in build.compilers()
    if compiler.family == "clang"
]
WITH_TYPES = [
    pytest.param(compiler, id=compiler.name)
    for compiler in build.compilers()
    if compiler.family != "gcc-bpf"
]


def read(name: str, compiler: build.Compiler, *flags: str) -> Object:
    source = build.FOLDER / f"{name}.c"
    if not build.suits(source, compiler):
        pytest.skip(f"{compiler.name} cannot compile {source.name}")
    return xdpkit.read(build.build(source, compiler, flags=flags).path)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_section_name_says_what_a_program_is(compiler: build.Compiler) -> None:
    programs = read("sections", compiler).programs
    assert [
        (name, spec.section, spec.attach_type, spec.flags) for name, spec in programs.items()
    ] == [
        ("on_interface", "xdp", AttachType.XDP, ProgFlags(0)),
        ("on_interface_frags", "xdp.frags", AttachType.XDP, ProgFlags.XDP_HAS_FRAGS),
        ("on_devmap", "xdp/devmap", AttachType.XDP_DEVMAP, ProgFlags(0)),
        ("on_cpumap", "xdp/cpumap", AttachType.XDP_CPUMAP, ProgFlags(0)),
        ("on_devmap_frags", "xdp.frags/devmap", AttachType.XDP_DEVMAP, ProgFlags.XDP_HAS_FRAGS),
        ("on_cpumap_frags", "xdp.frags/cpumap", AttachType.XDP_CPUMAP, ProgFlags.XDP_HAS_FRAGS),
        ("on_request", "?xdp", AttachType.XDP, ProgFlags(0)),
    ]
    assert [name for name, spec in programs.items() if not spec.autoload] == ["on_request"]
    assert {spec.type for spec in programs.values()} == {ProgType.XDP}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_tracepoint_program_says_where_it_attaches(compiler: build.Compiler) -> None:
    programs = read("tracepoints", compiler).programs
    assert {name: (spec.type, spec.attach_to) for name, spec in programs.items()} == {
        "typed": (ProgType.TRACING, "xdp_exception"),
        "raw": (ProgType.RAW_TRACEPOINT, "xdp_exception"),
        "raw_long_name": (ProgType.RAW_TRACEPOINT, "xdp_redirect_err"),
    }


@pytest.mark.parametrize("compiler", COMPILERS)
def test_foreign_sections_are_listed_and_left_alone(compiler: build.Compiler) -> None:
    obj = read("foreign_sections", compiler)
    assert list(obj.programs) == ["ours"]
    assert {"kprobe/do_nothing", "classifier", "tc"} <= set(obj.skipped)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_licence_and_version_are_read(compiler: build.Compiler) -> None:
    obj = read("version", compiler)
    assert (obj.license, obj.version) == ("Proprietary", 0x00060102)
    assert (read("packet", compiler).license, read("packet", compiler).version) == (
        "Dual BSD/GPL",
        0,
    )


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_attribute_of_a_map_definition_is_read(compiler: build.Compiler) -> None:
    hashes = read("maps_hash", compiler).maps
    flows, sparse, recent = hashes["flows"], hashes["sparse"], hashes["recent"]
    assert (flows.type, flows.key_size, flows.value_size) == (MapType.HASH, 16, 24)
    assert (flows.max_entries, flows.flags, flows.numa_node) == (1024, MapFlags(0), None)
    assert (sparse.flags & MapFlags.NO_PREALLOC, sparse.numa_node) == (MapFlags.NO_PREALLOC, 0)
    assert (recent.type, recent.key_type_id, recent.value_type_id) == (MapType.LRU_HASH, 0, 0)
    assert (recent.key_size, recent.value_size) == (8, 24)
    queues = read("maps_queue", compiler).maps
    assert (queues["seen"].type, queues["seen"].map_extra) == (MapType.BLOOM_FILTER, 3)
    assert queues["queue"].key_size == 0
    pinned = read("maps_pinned", compiler).maps
    assert pinned["corpus_shared"].pinning is Pinning.BY_NAME
    assert pinned["private"].pinning is Pinning.NONE
    assert read("maps_events", compiler).maps["per_cpu_rings"].max_entries == 0


@pytest.mark.parametrize("compiler", WITH_TYPES)
def test_maps_of_maps_have_a_template_and_values(compiler: build.Compiler) -> None:
    maps = read("maps_of_maps", compiler).maps
    table = maps["table"]
    assert table.values == {0: "first", 2: "second"}
    assert table.inner is not None
    assert (table.inner.type, table.inner.max_entries) == (MapType.ARRAY, 2)
    by_name = maps["table_by_name"]
    assert by_name.inner is not None
    assert (by_name.key_size, by_name.inner.type, by_name.values) == (8, MapType.HASH, {})
    assert read("program_array", compiler).maps["jumps"].values == {1: "target", 5: "other"}


@pytest.mark.parametrize("compiler", WITH_TYPES)
def test_variables_are_read_with_their_types(compiler: build.Compiler) -> None:
    variables = read("variables", compiler).variables
    assert variables["counted"] == 0
    assert variables["signed_result"] == -5
    assert variables["enabled"] is True
    assert variables["verdict"] == 7
    assert variables["table"] == [1, 2, 3, 4]
    assert variables["negative"] == -1234567890123
    assert variables["label"] == b"corpus".ljust(16, b"\0")
    assert variables["hidden_constant"] == 0xBEEF
    assert variables["fixed"] == {
        "threshold": 77,
        "flags": 0,
        "level": 0,
        "delta": 0,
        "label": bytes(8),
        "range": [{"low": 1, "high": 2}, {"low": 3, "high": 4}],
    }


@pytest.mark.parametrize("compiler", WITH_TYPES)
def test_a_variable_that_is_set_changes_its_own_bytes_only(compiler: build.Compiler) -> None:
    variables = read("variables", compiler).variables
    before = {name: variables[name] for name in variables}
    variables["negative"] = 5
    variables["table"] = [9, 8, 7, 6]
    after = {name: variables[name] for name in variables}
    assert after == {**before, "negative": 5, "table": [9, 8, 7, 6]}


@pytest.mark.parametrize("compiler", WITH_TYPES)
def test_a_value_that_does_not_fit_a_variable_is_refused(compiler: build.Compiler) -> None:
    variables = read("variables", compiler).variables
    with pytest.raises(xdpkit.UsageError):
        variables["hidden_constant"] = 0x10000
    with pytest.raises(xdpkit.UsageError):
        variables["no_such_variable"] = 1
    assert variables["hidden_constant"] == 0xBEEF


@pytest.mark.parametrize("compiler", WITH_TYPES)
def test_each_data_section_is_a_map(compiler: build.Compiler) -> None:
    obj = read("custom_sections", compiler)
    assert set(obj.maps) == {
        ".data",
        ".data.custom",
        ".data.another_one_with_a_long_name",
        ".rodata.custom",
        ".bss.custom",
        ".bss.second",
    }
    assert obj.maps[".rodata.custom"].is_frozen
    assert not obj.maps[".bss.custom"].is_frozen
    assert obj.variables["in_custom"] == 2
    assert obj.variables["in_bss_custom"] == [0, 0, 0]


@pytest.mark.parametrize("compiler", WITH_TYPES)
def test_externs_say_whether_they_may_be_absent(compiler: build.Compiler) -> None:
    externs = read("kfuncs", compiler).externs
    assert {name: (extern.kind, extern.is_weak) for name, extern in externs.items()} == {
        "bpf_dynptr_from_xdp": (ExternKind.KFUNC, False),
        "bpf_dynptr_slice": (ExternKind.KFUNC, False),
        "bpf_no_kernel_has_this": (ExternKind.KFUNC, True),
        "bpf_rdonly_cast": (ExternKind.KFUNC, True),
    }
    kconfig = read("kconfig", compiler).externs
    assert kconfig["LINUX_KERNEL_VERSION"].size == 4
    assert kconfig["CONFIG_NO_SUCH_NUMBER"].is_weak
    ksyms = read("ksym_variables", compiler).externs
    assert ksyms["xdp_do_redirect"].kind is ExternKind.KSYM
    assert ksyms["no_such_symbol"].is_weak


@pytest.mark.parametrize("compiler", COMPILERS)
def test_subprograms_are_linked_where_they_are_first_called(compiler: build.Compiler) -> None:
    functions = read("subprograms_static", compiler).programs["subprograms_static"].link().functions
    assert functions[0] == (0, "subprograms_static")
    assert {"first", "middle", "last"} <= {name for _, name in functions}
    assert len({name for _, name in functions}) == len(functions)


@pytest.mark.parametrize("compiler", CLANGS)
@pytest.mark.parametrize(
    "name", ["maps_hash", "variables", "subprograms_static", "kfuncs", "constants", "program_array"]
)
def test_a_big_endian_object_reads_as_its_little_endian_twin(
    name: str, compiler: build.Compiler
) -> None:
    little = read(name, compiler)
    big = read(name, compiler, "-target", "bpfeb")
    assert (little.byteorder, big.byteorder) == ("little", "big")
    assert list(big.programs) == list(little.programs)
    assert big.externs == little.externs
    assert big.maps == little.maps
    assert dict(big.variables) == dict(little.variables)
    for program, spec in big.programs.items():
        linked = spec.link()
        twin = little.programs[program].link()
        assert [name for _, name in linked.functions] == [name for _, name in twin.functions]
        assert [(item.kind, item.name, item.offset) for item in linked.relocations] == [
            (item.kind, item.name, item.offset) for item in twin.relocations
        ]


@pytest.mark.parametrize("compiler", CLANGS)
def test_a_relocation_names_the_map_and_the_offset(compiler: build.Compiler) -> None:
    relocations = read("packet", compiler).programs["packet"].link().relocations
    assert {(item.kind, item.name, item.offset) for item in relocations} == {
        (RelocationKind.MAP, "hits", 0),
        (RelocationKind.MAP_VALUE, ".rodata", 0),
    }


@pytest.mark.parametrize("compiler", CLANGS)
@pytest.mark.parametrize(
    ("name", "section", "words"),
    [
        ("pointer_in_data", ".data", "pointer"),
        ("map_without_type", ".maps", "type"),
        ("map_with_unknown_attribute", ".maps", "colour"),
        ("map_without_btf", ".maps", "BTF"),
        ("values_of_wrong_kind", ".maps", "array"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_place(
    name: str, section: str, words: str, compiler: build.Compiler
) -> None:
    built = build.build(build.FOLDER / "refused" / f"{name}.c", compiler)
    with pytest.raises(xdpkit.ObjectFormatError) as refused:
        xdpkit.read(built.path)
    assert refused.value.file == str(built.path)
    assert refused.value.section == section
    assert words in refused.value.cause


@pytest.mark.parametrize("compiler", WITH_TYPES)
def test_the_file_name_begins_the_names_of_data_maps(
    compiler: build.Compiler, tmp_path: Path
) -> None:
    data = build.build(build.FOLDER / "packet.c", compiler).path.read_bytes()
    path = tmp_path / "a_name_that_is_long.with.dots.o"
    path.write_bytes(data)
    assert xdpkit.read(path).maps[".rodata"].kernel_name == "a_name_t.rodata"
