# SPDX-License-Identifier: Apache-2.0
"""The compiler and xdpkit.h, with each compiler that is here."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from xdpkit import CompileError, UsageError
from xdpkit.compiler import INCLUDE_DIR, Compiler, compile, find_compilers
from xdpkit.uapi.bpf import MapFlags, MapType, UpdateFlags, XdpAction
from xdpkit.uapi.helpers import HELPERS

PROGRAMS = sorted((Path(__file__).parents[2] / "bpf").glob("*.c"))
HEADER = (INCLUDE_DIR / "xdpkit.h").read_text()
DROP = '#include <xdpkit.h>\nSEC("xdp") int drop(struct xdp_md *ctx)\n{\n\treturn XDP_DROP;\n}\n'

each_compiler = pytest.mark.parametrize("with_", find_compilers(), ids=lambda found: found.name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "drop.c"
    path.write_text(DROP)
    return path


def section(path: Path, name: str) -> bytes:
    elf = ELFFile(io.BytesIO(path.read_bytes()))
    found = elf.get_section_by_name(name)
    assert found is not None
    data: bytes = found.data()
    return data


# xdpkit.h


@each_compiler
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_the_programs_of_the_package_compile_without_any_system_header(
    with_: Compiler, program: Path, tmp_path: Path
) -> None:
    alone = dataclasses.replace(with_, command=(*with_.command, "-nostdlibinc"), system_includes=())
    compiled = compile(program, tmp_path / "out.o", compiler=alone)
    assert compiled.warnings == ""
    assert section(compiled.path, ".BTF")


@each_compiler
def test_the_header_can_follow_the_headers_of_the_kernel_and_of_libbpf(
    with_: Compiler, tmp_path: Path
) -> None:
    for header in ("linux/bpf.h", "bpf/bpf_helpers.h"):
        if not Path("/usr/include", header).exists():
            pytest.skip(f"{header} is not installed: apt-get install libbpf-dev linux-libc-dev")
    kernel = ("bpf", "if_ether", "in", "in6", "ip", "ipv6", "udp", "tcp")
    path = tmp_path / "all.c"
    path.write_text(
        "".join(f"#include <linux/{name}.h>\n" for name in kernel)
        + "#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_endian.h>\n"
        + DROP
    )
    assert compile(path, compiler=with_).warnings == ""


@each_compiler
def test_layouts_are_those_of_the_kernel(with_: Compiler, tmp_path: Path) -> None:
    if not Path("/usr/include/linux/bpf.h").exists():
        pytest.skip("linux/bpf.h is not installed: apt-get install linux-libc-dev")
    fields = {
        "struct xdp_md": "data rx_queue_index egress_ifindex",
        "struct bpf_fib_lookup": "family sport tot_len ifindex tos ipv4_src ipv4_dst "
        "h_vlan_proto smac dmac",
        "struct bpf_devmap_val": "ifindex bpf_prog",
        "struct bpf_cpumap_val": "qsize bpf_prog",
        "struct bpf_sock_tuple": "ipv4 ipv6.dport",
        "struct ethhdr": "h_source h_proto",
        "struct iphdr": "tos frag_off protocol saddr daddr",
        "struct ipv6hdr": "flow_lbl payload_len nexthdr saddr daddr",
        "struct ipv6_opt_hdr": "hdrlen",
        "struct udphdr": "dest check",
        "struct tcphdr": "ack_seq window urg_ptr",
    }
    numbers = [f"sizeof({type_})" for type_ in fields]
    for type_, names in fields.items():
        numbers += [f"offsetof({type_}, {name})" for name in names.split()]
    # Bit fields: which bit a 1 in them sets.
    bits = "struct iphdr ip = {.ihl = 1}; struct ipv6hdr ip6 = {.version = 1};"
    bits += "struct tcphdr tcp = {.doff = 1, .syn = 1, .cwr = 1};"
    facts = f"#include <xdpkit.h>\nlong numbers[] = {{{', '.join(numbers)}}};\n{bits}\n"
    kernel = ("bpf", "if_ether", "ip", "ipv6", "udp", "tcp")
    ours, theirs = tmp_path / "ours.c", tmp_path / "theirs.c"
    ours.write_text(facts)
    theirs.write_text("".join(f"#include <linux/{name}.h>\n" for name in kernel) + facts)
    compile(ours, compiler=with_)
    compile(theirs, compiler=with_)
    expected = section(theirs.with_suffix(".o"), ".data")
    assert len(expected) > 8 * len(numbers)
    assert section(ours.with_suffix(".o"), ".data") == expected


def test_helpers_have_the_numbers_of_the_kernel() -> None:
    declared = re.findall(r"^XDPKIT_HELPER\((\d+), [^,]+, bpf_(\w+),", HEADER, re.MULTILINE)
    assert len(declared) > 50
    assert declared == [(number, HELPERS[int(number)]) for number, _ in declared]


@pytest.mark.parametrize(
    ("enum", "prefix", "least"),
    [
        (MapType, "BPF_MAP_TYPE_", 25),
        (MapFlags, "BPF_F_", 11),
        (UpdateFlags, "BPF_", 4),
        (XdpAction, "XDP_", 5),
    ],
)
def test_constants_have_the_values_of_the_kernel(
    enum: type[MapType] | type[MapFlags] | type[UpdateFlags] | type[XdpAction],
    prefix: str,
    least: int,
) -> None:
    declared = re.findall(rf"^\t{prefix}(\w+) = (\d+)(?:U << (\d+))?,", HEADER, re.MULTILINE)
    values = {name: int(number) << int(shift or 0) for name, number, shift in declared}
    known = {name: member.value for name, member in enum.__members__.items()}
    common = values.keys() & known.keys()
    assert len(common) >= least
    assert {name: values[name] for name in common} == {name: known[name] for name in common}


# What comes out


@each_compiler
def test_an_object_does_not_depend_on_where_its_source_lies(
    with_: Compiler, tmp_path: Path
) -> None:
    objects = []
    for name in ("one", "another/place"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "drop.c").write_text(DROP)
        objects.append(compile(folder / "drop.c", compiler=with_).path.read_bytes())
    assert objects[0] == objects[1]
    assert os.fsencode(tmp_path) not in objects[0]
    assert os.fsencode(INCLUDE_DIR) not in objects[0]


@each_compiler
def test_source_lines_are_in_the_types_also_those_of_the_users_own_headers(
    with_: Compiler, tmp_path: Path
) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "own.h").write_text(
        "static inline int far(void *at)\n{\n\treturn *(volatile int *)at; /* in own.h */\n}\n"
    )
    (tmp_path / "use.c").write_text(
        '#include <xdpkit.h>\n#include <own.h>\nSEC("xdp") int use(struct xdp_md *ctx)\n'
        "{\n\treturn far(ctx) + 42; /* in use.c */\n}\n"
    )
    compiled = compile(tmp_path / "use.c", compiler=with_, include=[tmp_path / "include"])
    btf = section(compiled.path, ".BTF")
    assert b"/* in own.h */" in btf
    assert b"./include/own.h\0" in btf
    assert b"./use.c\0" in btf


def test_macros_can_be_defined(tmp_path: Path) -> None:
    path = tmp_path / "defines.c"
    path.write_text("char text[] = NAME;\n#ifndef FLAG\n#error FLAG\n#endif\n")
    compiled = compile(path, defines=['NAME="xdpkit"', "FLAG"])
    assert section(compiled.path, ".data") == b"xdpkit\0"


def test_without_debug_there_are_no_types(source: Path) -> None:
    assert b".BTF" not in compile(source, debug=False).path.read_bytes()


def test_the_output_lies_beside_the_source_unless_told_otherwise(
    source: Path, tmp_path: Path
) -> None:
    assert compile(source).path == tmp_path / "drop.o"
    assert compile(source, tmp_path / "other").path.stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drop.c", "drop.o", "other"]


def test_a_device_is_written_to_and_not_replaced(source: Path, tmp_path: Path) -> None:
    # A link stands in for the device: replacing the output would replace the link.
    output = tmp_path / "null"
    output.symlink_to("/dev/null")
    compile(source, output)
    assert output.is_symlink()


def test_warnings_are_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "warns.c"
    path.write_text("int f(void) { int unused; return 0; }\n")
    assert "warns.c:1:19: warning: unused variable" in compile(path).warnings


# What goes wrong


@each_compiler
def test_an_error_in_the_source_is_told_and_the_old_object_stays(
    with_: Compiler, source: Path
) -> None:
    source.with_suffix(".o").write_bytes(b"old")
    source.write_text("int f(void) { return unknown; }\n" * 5)
    with pytest.raises(CompileError) as raised:
        compile(source, compiler=with_)
    assert raised.value.what == "compile drop.c"
    assert raised.value.cause.startswith("drop.c:1:22: error: ")
    assert raised.value.cause.count("\n") == 2
    assert raised.value.log.count("'unknown'") >= 5
    assert source.with_suffix(".o").read_bytes() == b"old"
    assert len(list(source.parent.iterdir())) == 2


@pytest.mark.parametrize(
    ("header", "package"), [("linux/none.h", "linux-libc-dev"), ("bpf/none.h", "libbpf-dev")]
)
def test_a_missing_system_header_has_a_remedy(source: Path, header: str, package: str) -> None:
    source.write_text(f"#include <{header}>\n")
    with pytest.raises(CompileError) as raised:
        compile(source)
    assert raised.value.remedy is not None
    assert "xdpkit.h" in raised.value.remedy
    assert package in raised.value.remedy


def test_a_source_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.c is not a file"):
        compile(tmp_path / "none.c")


def test_an_output_that_cannot_be_written_is_the_callers_mistake(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*: No such file or directory"):
        compile(source, tmp_path / "none" / "out.o")


# Which compiler


def pretend(folder: Path, name: str, targets: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '  Registered Targets:'\necho '    {targets}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH, and no ziglang."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return folder


def test_plain_clang_is_preferred_then_the_newest(only_path: Path) -> None:
    for name in ("clang-9", "clang-19", "clang", "clang-format", "clang-cl-3"):
        pretend(only_path, name, "bpf - BPF (host endian)")
    assert [found.name for found in find_compilers()] == ["clang", "clang-19", "clang-9"]


def test_a_clang_without_the_bpf_target_is_left_out(only_path: Path) -> None:
    pretend(only_path, "clang", "aarch64 - AArch64 (little endian)")
    pretend(only_path, "clang-15", "bpf - BPF (host endian)")
    assert [found.name for found in find_compilers()] == ["clang-15"]


def test_two_names_of_one_clang_count_once(only_path: Path) -> None:
    pretend(only_path, "clang-15", "bpf - BPF (host endian)")
    (only_path / "clang").symlink_to(only_path / "clang-15")
    assert [found.name for found in find_compilers()] == ["clang"]


def test_a_file_that_cannot_be_run_is_no_compiler(only_path: Path) -> None:
    pretend(only_path, "clang", "bpf").chmod(0o644)
    (only_path / "clang-15").write_text("no program\n")
    (only_path / "clang-15").chmod(0o755)
    assert find_compilers() == ()


def test_without_a_compiler_the_error_says_how_to_get_one(only_path: Path, source: Path) -> None:
    with pytest.raises(CompileError, match="no compiler") as raised:
        compile(source)
    assert raised.value.remedy == "apt-get install clang, or pip install 'xdpkit[compile]'"


def test_an_unknown_compiler_is_refused_with_those_that_are_there(
    only_path: Path, source: Path
) -> None:
    pretend(only_path, "clang-15", "bpf - BPF (host endian)")
    with pytest.raises(CompileError, match="clang-99 is not a compiler") as raised:
        compile(source, compiler="clang-99")
    assert raised.value.remedy == "choose from: clang-15"
