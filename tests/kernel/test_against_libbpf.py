# SPDX-License-Identifier: Apache-2.0
"""The loader's proof: what the kernel holds after our load and after libbpf's is the same.

For each program the tag and the xlated instructions, maps by name, value offsets included; its
function and line records; and each map's attributes and initial contents.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import xdpkit
from tests import oracle
from tests.corpus import build, generate

pytestmark = pytest.mark.skipif(
    not oracle.available(), reason="libbpf.so.1 is not installed: apt-get install libbpf1"
)

PACKAGED = sorted(Path("/usr/lib").glob("*/bpf/*.o"))
CORPUS = [
    pytest.param(source, compiler, id=f"{source.stem}-{compiler.name}")
    for source in build.sources()
    for compiler in build.compilers()
    if build.suits(source, compiler)
]
CLANGS = [
    pytest.param(compiler, id=compiler.name)
    for compiler in build.compilers()
    if compiler.family != "gcc-bpf"
]


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A folder in bpffs, for objects with pinned maps."""
    folder = Path("/sys/fs/bpf") / f"xdpkit-test-{tmp_path.parent.name}-{tmp_path.name}"
    for path in (folder, folder / "libbpf", folder / "xdpkit"):
        path.mkdir()
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.skipif(not PACKAGED, reason="no objects to load: apt-get install libxdp1 xdp-tools")
@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_a_packaged_object_loads_as_libbpf_loads_it(path: Path, pins: Path) -> None:
    assert_same(path, pins)


@pytest.mark.parametrize(("source", "compiler"), CORPUS)
def test_an_object_of_the_corpus_loads_as_libbpf_loads_it(
    source: Path, compiler: build.Compiler, pins: Path
) -> None:
    path = build.build(source, compiler).path
    try:
        expected = loads_in_libbpf(path, pins)
    except oracle.OracleError as error:
        if not build.needs(source):
            raise
        its_words = str(error)
    else:
        assert_equal(loads_in_xdpkit(path, pins), expected)
        return
    # This kernel lacks what the source needs: then it has to say the same to us.
    with pytest.raises(xdpkit.VerifierError) as refused:
        loads_in_xdpkit(path, pins)
    assert refused.value.log.splitlines()[0] in its_words


@pytest.mark.parametrize("compiler", CLANGS)
@pytest.mark.parametrize("name", ["subprograms_static", "callbacks", "tracepoints", "variables"])
def test_types_without_function_and_line_records_load_as_libbpf_loads_them(
    name: str, compiler: build.Compiler, pins: Path
) -> None:
    built = build.build(build.FOLDER / f"{name}.c", compiler)
    bare = build.transformed(built, "no-line-info", build.without_line_info)
    if name == "callbacks":
        with pytest.raises(oracle.OracleError, match="missing btf func_info"):
            loads_in_libbpf(bare.path, pins)
        with pytest.raises(xdpkit.VerifierError) as refused:
            loads_in_xdpkit(bare.path, pins)
        assert "missing btf func_info" in refused.value.log
    else:
        assert_same(bare.path, pins)


# Not zig's: libbpf 1.1 cannot link the .eh_frame that it writes.
@pytest.mark.parametrize("compiler", [param for param in CLANGS if param.id != "zig"])
def test_a_statically_linked_object_loads_as_libbpf_loads_it(
    compiler: build.Compiler, pins: Path, tmp_path: Path
) -> None:
    parts = [
        build.build(build.FOLDER / "linked" / f"{name}.c", compiler).path
        for name in ("fallback", "override")
    ]
    output = tmp_path / "linked.o"
    oracle.link_objects(output, *parts)
    assert_same(output, pins)


@pytest.mark.parametrize("compiler", CLANGS)
@pytest.mark.parametrize("functions", [0, 64])
@pytest.mark.parametrize("instructions", [4000, 20000])
def test_a_big_program_loads_as_libbpf_loads_it(
    instructions: int, functions: int, compiler: build.Compiler, pins: Path, tmp_path: Path
) -> None:
    source = tmp_path / "big.c"
    source.write_text(generate.source(instructions, functions=functions))
    assert_same(build.build(source, compiler).path, pins)


def test_libbpf_twice_gives_the_same_and_another_program_does_not(pins: Path) -> None:
    source = build.FOLDER / "subprograms_shared.c"
    path = build.variants(source)[0].path
    first = loads_in_libbpf(path, pins)
    assert loads_in_libbpf(path, pins) == first
    assert first.programs["one"] != first.programs["two"]


def test_value_offsets_and_map_names_tell_programs_with_one_tag_apart() -> None:
    def code(kind: int, number: int, offset: int) -> bytes:
        return struct.pack("<BBhiBBhi", 0x18, kind << 4 | 1, 0, number, 0, 0, 0, offset)

    names = {7: "hits", 8: "misses"}
    assert oracle.normalized(code(2, 7, 4), names) == ("18 21 0 value hits+4",)
    assert oracle.normalized(code(2, 7, 8), names) != oracle.normalized(code(2, 7, 4), names)
    assert oracle.normalized(code(1, 8, 0), names) != oracle.normalized(code(1, 7, 0), names)


def assert_same(path: Path, pins: Path) -> None:
    assert_equal(loads_in_xdpkit(path, pins), loads_in_libbpf(path, pins))


def assert_equal(ours: oracle.KernelObject, libbpfs: oracle.KernelObject) -> None:
    assert set(ours.programs) == set(libbpfs.programs)
    for name, program in libbpfs.programs.items():
        assert ours.programs[name].xlated == program.xlated, name
        assert ours.programs[name].tag == program.tag, name
        assert ours.programs[name] == program
    assert ours.maps == libbpfs.maps


def loads_in_libbpf(path: Path, pins: Path) -> oracle.KernelObject:
    with oracle.loaded(path, pin_root=pins / "libbpf") as result:
        return result


def loads_in_xdpkit(path: Path, pins: Path) -> oracle.KernelObject:
    obj = xdpkit.read(path)
    with xdpkit.load_all(obj, pin_root=str(pins / "xdpkit")) as collection:
        return oracle.describe(
            {name: program.fileno() for name, program in collection.programs.items()},
            {name: item.fileno() for name, item in collection.maps.items()},
        )
