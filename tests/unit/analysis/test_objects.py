# SPDX-License-Identifier: Apache-2.0
"""Programs of object files as subjects."""

from __future__ import annotations

from dataclasses import replace

import pytest

import xdpkit
from tests.corpus import build
from tests.corpus_actions import cases
from xdpkit.analysis import analyse, subject_of
from xdpkit.analysis.objects import kfuncs_of
from xdpkit.obj.spec import Object, Pinning
from xdpkit.uapi.bpf import AttachType, ProgFlags

CLANGS = [compiler for compiler in build.compilers() if compiler.family == "clang"]


@pytest.fixture
def compiler() -> build.Compiler:
    if not CLANGS:
        pytest.skip("no clang to compile with: apt-get install clang")
    return CLANGS[-1]


def read(name: str, compiler: build.Compiler) -> Object:
    source = build.FOLDER / f"{name}.c"
    if not build.suits(source, compiler):
        pytest.skip(f"{compiler.name} cannot compile {source.name}")
    return xdpkit.read(build.build(source, compiler).path)


def actions(obj: Object, name: str) -> str:
    return str(analyse(subject_of(obj.programs[name])).actions)


def test_constants_are_those_that_are_set_now(compiler: build.Compiler) -> None:
    obj = cases.read(cases.FOLDER / "maps.c", compiler)
    assert actions(obj, "constant_variable") == "TX"
    obj.variables["configured"] = 42
    assert actions(obj, "constant_variable") == "42"
    assert actions(obj, "dead_branch") == "PASS"


def test_origins_have_source_lines(compiler: build.Compiler) -> None:
    obj = cases.read(cases.FOLDER / "constants.c", compiler)
    found = analyse(subject_of(obj.programs["forty_two"])).actions
    (origin,) = found.invalid[42]
    line = next(
        number
        for number, text in enumerate((cases.FOLDER / "constants.c").read_text().splitlines(), 1)
        if "42 :" in text
    )
    assert str(origin) == f"constants.c:{line}"


def test_a_subject_knows_how_it_is_loaded(compiler: build.Compiler) -> None:
    subject = subject_of(read("sections", compiler).programs["on_devmap_frags"])
    assert (subject.attach_type, subject.flags) == (AttachType.XDP_DEVMAP, ProgFlags.XDP_HAS_FRAGS)


def test_global_functions_are_replaceable_unless_hidden(compiler: build.Compiler) -> None:
    subject = subject_of(read("subprograms_global", compiler).programs["subprograms_global"])
    assert {function.name for function in subject.functions if function.is_global} >= {
        "subprograms_global"
    }
    hidden = subject_of(read("weak_and_hidden", compiler).programs["weak_and_hidden"])
    local = {
        function.name
        for function in read("weak_and_hidden", compiler).code.functions.values()
        if function.is_hidden
    }
    assert local
    assert not {function.name for function in hidden.functions if function.is_global} & local


def test_relocations_are_applied_for_a_target(compiler: build.Compiler) -> None:
    obj = read("core_guarded", compiler)
    assert obj.btf is not None
    without = subject_of(obj.programs["guarded"])
    relocated = subject_of(obj.programs["guarded"], obj.btf)
    assert [i.opcode for i in without.instructions] == [i.opcode for i in relocated.instructions]
    assert analyse(relocated).actions.values <= analyse(without).actions.values


def test_a_weak_symbol_is_there_or_not_as_the_target_says(compiler: build.Compiler) -> None:
    obj = read("kfuncs", compiler)
    assert obj.btf is not None
    assert actions(obj, "only_weak") == "DROP PASS"
    # The object's own types have no kernel function that it defines: to it, none is there.
    references = subject_of(obj.programs["only_weak"]).references.values()
    assert {reference.is_there for reference in references} == {None}


def test_kernel_functions_have_as_many_arguments_as_they_are_declared_with(
    compiler: build.Compiler,
) -> None:
    obj = read("kfuncs", compiler)
    spec = obj.programs["kfuncs"]
    arguments = {
        "bpf_dynptr_from_xdp": 3,
        "bpf_dynptr_slice": 4,
        "bpf_no_kernel_has_this": 1,
    }
    calls = kfuncs_of(obj, spec.link())
    assert {each.name: each.arguments for each in calls.values()} == arguments
    references = subject_of(spec).references
    assert {slot: references[slot].arguments for slot in calls} == {
        slot: each.arguments for slot, each in calls.items()
    }


def test_an_exception_callback_is_found_by_its_tag() -> None:
    source = build.FOLDER / "beyond" / "exception_callback.c"
    compiler = next((found for found in reversed(CLANGS) if build.suits(source, found)), None)
    if compiler is None:
        pytest.skip("no clang to compile with: apt-get install clang")
    obj = xdpkit.read(build.build(source, compiler).path)
    subject = subject_of(obj.programs["exception_callback"])
    assert subject.exception_callback is not None
    assert not analyse(subject).actions.any


def test_program_arrays_hold_what_the_object_puts_there(compiler: build.Compiler) -> None:
    subject = subject_of(cases.read(cases.FOLDER / "tail_calls.c", compiler).programs["empty_slot"])
    programs = subject.maps["filled"].programs
    assert programs is not None
    assert {slot: program.name for slot, program in programs.items()} == {
        0: "sends_back",
        2: "drops",
    }
    assert subject.maps["others_fill"].programs is None


def test_what_an_open_program_array_holds_is_not_known(compiler: build.Compiler) -> None:
    spec = cases.read(cases.FOLDER / "tail_calls.c", compiler).programs["empty_slot"]
    subject = subject_of(spec, open_maps={"filled"})
    assert subject.maps["filled"].programs is None
    found = analyse(subject).actions
    assert found.any
    assert "tail call" in str(found.unknown[0].cause)


def test_a_program_array_that_is_shared_through_a_pin_is_open(compiler: build.Compiler) -> None:
    obj = cases.read(cases.FOLDER / "tail_calls.c", compiler)
    shared = replace(obj.maps["filled"], pinning=Pinning.BY_NAME)
    spec = obj.programs["empty_slot"]
    pinned = replace(spec, object=replace(obj, maps={**obj.maps, "filled": shared}))
    assert subject_of(pinned).maps["filled"].programs is None


def test_constants_in_an_open_map_are_not_known(compiler: build.Compiler) -> None:
    spec = cases.read(cases.FOLDER / "maps.c", compiler).programs["constant_variable"]
    assert analyse(subject_of(spec, open_maps={".rodata"})).actions.any


def test_a_snapshot_keeps_the_variables_that_were_set(compiler: build.Compiler) -> None:
    obj = cases.read(cases.FOLDER / "maps.c", compiler)
    before = obj.snapshot()
    obj.variables["configured"] = 42
    after = obj.snapshot()
    obj.variables["configured"] = 1
    after.variables["configured"] = 41
    assert [actions(each, "constant_variable") for each in (before, obj, after)] == [
        "TX",
        "DROP",
        "41",
    ]
    assert all(spec.object is before for spec in before.programs.values())
