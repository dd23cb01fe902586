# SPDX-License-Identifier: Apache-2.0
"""Programs that are loaded again from their images are the same programs.

The same tag and the same instructions; pointers that the verifier inserts are of each load alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import xdpkit
from tests import oracle
from tests.corpus import build
from tests.kernel import old_kernel
from tests.kernel.attaching import program as corpus_program
from tests.kernel.compiled import read, returning
from tests.kernel.net import Veth
from xdpkit.errors import (
    KernelRefused,
    ObjectFormatError,
    RequirementUnmet,
    UsageError,
    VerifierError,
)
from xdpkit.hook import records
from xdpkit.kernel import Image, Program, load, load_all, load_image
from xdpkit.kernel.image import MapReference
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import Cmd, ProgFlags, XdpAction

PACKET = bytes(64)
# Ids are given in ascending order.
NOBODYS = (1 << 31) - 2

CORPUS = [
    pytest.param(source, compiler, id=f"{source.stem}-{compiler.name}")
    for source in build.sources()
    for compiler in build.compilers()
    if build.suits(source, compiler)
]


def assert_same(again: Program, program: Program) -> None:
    ids = {number: str(number) for number in program.info().map_ids}
    assert again.tag == program.tag
    assert oracle.normalized(again.xlated(), ids) == oracle.normalized(program.xlated(), ids)
    ours, its = again.info(), program.info()
    assert set(ours.map_ids) == set(its.map_ids)
    assert (ours.name, ours.type, ours.btf_id) == (its.name, its.type, its.btf_id)
    assert ours.gpl_compatible == its.gpl_compatible
    assert ours.ifindex == its.ifindex
    assert (ours.attach_btf_object_id, ours.attach_btf_id) == (
        its.attach_btf_object_id,
        its.attach_btf_id,
    )


@pytest.mark.parametrize(("source", "compiler"), CORPUS)
def test_each_program_of_the_corpus_is_the_same_when_it_is_loaded_again(
    source: Path, compiler: build.Compiler, pin_root: str
) -> None:
    obj = xdpkit.read(build.build(source, compiler).path)
    try:
        loaded = load_all(obj, pin_root=pin_root)
    except VerifierError:
        # What this kernel refuses the first time cannot be loaded again.
        assert build.needs(source)
        return
    with loaded:
        for program in loaded.programs.values():
            assert program.image is not None
            image = Image.decode(program.image.encode())
            assert image == program.image
            with load_image(image) as again:
                assert_same(again, program)
                assert again.name == program.name
                assert {name: found.id for name, found in again.maps.items()} == {
                    name: found.id for name, found in program.maps.items()
                }
                assert again.image == image


def test_a_program_that_is_loaded_again_shares_its_maps(pin_root: str) -> None:
    with load(read("shared").programs["jumping"], pin_root=pin_root) as program:
        assert program.image is not None
        with load_image(program.image) as again:
            assert again.run(PACKET).action is XdpAction.TX
            assert program.maps["hits"][0] == 1
            assert again.spec is None


def test_the_image_has_ids_and_names_of_what_the_program_uses(pin_root: str) -> None:
    with load(read("shared").programs["jumping"], pin_root=pin_root) as program:
        image = program.image
        assert image is not None
        # The maps of the programs in its array are the Program's, but not this program's own.
        assert {used.id for used in image.maps} == set(program.info().map_ids)
        assert set(program.maps) > {used.name for used in image.maps}
        assert image.btf_id == program.info().btf_id
        assert image.name == program.name


@pytest.mark.needs("prog-bind-map")
def test_a_program_is_loaded_again_when_its_file_and_its_process_are_gone(
    pin_root: str, tmp_path: Path
) -> None:
    path = tmp_path / "gone.o"
    shutil.copy(str(read("shared").path), path)
    script = """
import sys
import xdpkit
from xdpkit.hook import records
from xdpkit.kernel import load
from tests.unit.hook.sample import RECORD
obj = xdpkit.read(sys.argv[1])
obj.variables["step"] = 7
with load(obj.programs["last"], pin_root=sys.argv[2]) as program:
    program.pin(sys.argv[2] + "/program")
    records.write(program, RECORD)
    print(program.tag)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, path, pin_root], capture_output=True, text=True, check=True
    )
    path.unlink()
    with Program.from_pin(f"{pin_root}/program") as program:
        image = records.image_of(program.fileno())
        assert image is not None
        with load_image(image) as again:
            assert again.tag == program.tag == done.stdout.strip()
            again.run(PACKET)
            assert again.maps["hits"][0] == 7


@pytest.mark.needs("fd-array")
def test_a_program_bound_to_a_device_is_bound_again(veth: Veth) -> None:
    with entered(veth.netns):
        try:
            program = load(corpus_program(), ifindex=veth.interface.index)
        except xdpkit.KernelRefused as error:
            pytest.skip(f"this kernel binds no program to a veth (Linux 6.3): {error.cause}")
        with program:
            assert program.image is not None
            assert program.image.ifindex == veth.interface.index
            assert program.image.flags & ProgFlags.XDP_DEV_BOUND_ONLY
            with load_image(program.image) as again:
                assert_same(again, program)


def image_of_last(pin_root: str) -> tuple[Program, Image]:
    program = load(read("shared").programs["last"], pin_root=pin_root)
    assert program.image is not None
    return program, program.image


@pytest.mark.needs("prog-bind-map")
def test_what_is_gone_is_named(pin_root: str) -> None:
    program, image = image_of_last(pin_root)
    with program:
        # Bound to it only, so that its instructions do not name it.
        bound = next(used for used in image.maps if used.name == ".rodata.version")
        others = tuple(used for used in image.maps if used is not bound)
        lost = replace(image, maps=(*others, MapReference(NOBODYS, bound.name)))
        with pytest.raises(RequirementUnmet) as refused:
            load_image(lost)
        assert str(refused.value) == (
            f"load program last again: its map .rodata.version (id {NOBODYS}) is gone"
        )
        with pytest.raises(RequirementUnmet, match=f"type information .BTF id {NOBODYS}. is gone"):
            load_image(replace(image, btf_id=NOBODYS))


def test_an_image_that_contradicts_itself_is_refused(pin_root: str) -> None:
    program, image = image_of_last(pin_root)
    with program, pytest.raises(ObjectFormatError, match="loads maps that it does not list"):
        load_image(replace(image, maps=()))


def test_an_image_of_instructions_that_the_verifier_refuses_is_explained(pin_root: str) -> None:
    program, image = image_of_last(pin_root)
    with program, pytest.raises(VerifierError, match="load program last again"):
        load_image(replace(image, code=image.code[:-8], func_info=b"", line_info=b""))


def test_an_image_is_made_while_its_program_is_open(pin_root: str) -> None:
    program, image = image_of_last(pin_root)
    program.close()
    assert program.image is image
    program = load(read("shared").programs["last"], pin_root=pin_root)
    program.close()
    with pytest.raises(UsageError, match="it is closed"):
        _ = program.image


def test_only_who_loaded_a_program_has_its_image() -> None:
    with returning(XdpAction.PASS) as program:
        assert program.image is None


@pytest.mark.needs("prog-bind-map")
@pytest.mark.parametrize("cmd", [Cmd.PROG_LOAD, Cmd.PROG_BIND_MAP])
def test_a_reload_that_fails_leaves_nothing_and_can_be_repeated(
    cmd: Cmd, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, image = image_of_last(pin_root)
    with program:
        with (
            old_kernel.without(monkeypatch, old_kernel.commands(cmd)),
            pytest.raises(KernelRefused),
        ):
            load_image(image)
        # A map that it left open would fail the test: conftest.py counts descriptors.
        with load_image(image) as again:
            assert_same(again, program)
