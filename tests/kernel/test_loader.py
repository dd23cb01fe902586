# SPDX-License-Identifier: Apache-2.0
"""Loading objects: what is made, shared, owned and undone."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest

from tests.kernel import old_kernel
from tests.kernel.compiled import hash_map, read
from xdpkit.btf import Kind
from xdpkit.errors import KernelRefused, ObjectFormatError, RequirementUnmet, UsageError
from xdpkit.kernel import Map, load, load_all, program_ids
from xdpkit.kernel.btf import vmlinux
from xdpkit.kernel.session import Session
from xdpkit.syscalls import bpf
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import Cmd, MapFlags, MapType, XdpAction

PACKET = bytes(64)


@pytest.fixture(autouse=True)
def pins(pin_root: str) -> str:
    """A place for shared maps, beside those of other tests."""
    return pin_root


def test_one_program_brings_the_maps_that_it_refers_to(pins: str) -> None:
    obj = read("shared")
    with load(obj.programs["counting"], pin_root=pins) as program:
        assert set(program.maps) == {"hits", "flows", ".rodata", ".rodata.version"}
        assert program.run(PACKET).action is XdpAction.PASS
        assert program.maps["hits"][0] == 1


def test_closing_the_program_closes_its_maps(pins: str) -> None:
    with load(read("shared").programs["counting"], pin_root=pins) as program:
        maps = list(program.maps.values())
    for each in maps:
        with pytest.raises(UsageError, match="closed"):
            each.fileno()


def test_read_only_data_is_bound_to_programs_that_do_not_refer_to_it(pins: str) -> None:
    with load(read("shared").programs["jumping"], pin_root=pins) as program:
        assert program.maps[".rodata.version"].id in program.info().map_ids


def test_a_program_array_brings_its_programs(pins: str) -> None:
    with load(read("shared").programs["jumping"], pin_root=pins) as program:
        assert program.run(PACKET).action is XdpAction.TX
        assert program.maps["hits"][0] == 1
        ((slot, number),) = program.maps["jumps"].items()
        assert slot == 1
        assert number in set(program_ids())


def test_all_programs_share_their_maps(pins: str) -> None:
    obj = read("shared")
    with load_all(obj, pin_root=pins) as loaded:
        assert list(loaded.programs) == [n for n, s in obj.programs.items() if s.autoload]
        assert "on_request" not in loaded.programs
        assert set(loaded.maps) == set(obj.maps)
        loaded.programs["counting"].run(PACKET)
        loaded.programs["last"].run(PACKET)
        assert loaded.maps["hits"][0] == 2
        assert loaded.programs["counting"].maps["hits"] is loaded.maps["hits"]
        assert "unused" not in loaded.programs["counting"].maps
    with pytest.raises(UsageError, match="closed"):
        loaded.programs["last"].fileno()
    with pytest.raises(UsageError, match="closed"):
        loaded.maps["unused"].fileno()


def test_a_program_that_is_left_out_can_be_asked_for(pins: str) -> None:
    with load(read("shared").programs["on_request"], pin_root=pins) as program:
        assert program.run(PACKET).action is XdpAction.DROP


def test_variables_are_loaded_as_they_were_set(pins: str) -> None:
    obj = read("shared")
    obj.variables["step"] = 7
    with load(obj.programs["last"], pin_root=pins) as program:
        program.run(PACKET)
        assert program.maps["hits"][0] == 7
        with pytest.raises(KernelRefused) as refused:
            program.maps[".rodata"][0] = {"step": 8}
        assert refused.value.errno == errno.EPERM


def test_an_existing_map_is_used_and_stays_the_callers(pins: str) -> None:
    spec = read("shared").programs["last"]
    with load(spec, pin_root=pins) as first:
        with load(spec, maps={"hits": first.maps["hits"]}, pin_root=pins) as second:
            second.run(PACKET)
            first.run(PACKET)
            assert second.maps["hits"] is first.maps["hits"]
        assert first.maps["hits"][0] == 2


def test_an_existing_map_of_another_shape_is_refused(pins: str) -> None:
    spec = read("shared").programs["last"]
    with hash_map() as table:
        with pytest.raises(UsageError, match="type is HASH, and the program's ARRAY"):
            load(spec, maps={"hits": table}, pin_root=pins)
        with pytest.raises(UsageError, match=r"it has these maps: .*hits"):
            load(spec, maps={"misses": table}, pin_root=pins)
        assert table.fileno() >= 0


def test_a_shared_map_is_found_under_its_name(pins: str) -> None:
    spec = read("shared").programs["counting"]
    with load(spec, pin_root=pins) as first:
        first.run(PACKET)
        with load(spec, pin_root=pins) as second:
            assert second.maps["flows"].id == first.maps["flows"].id
            assert len(second.maps["flows"]) == 1
            assert second.maps["hits"].id != first.maps["hits"].id
    assert os.listdir(pins) == ["flows"]


def test_a_shared_map_of_another_shape_is_refused_with_the_difference(pins: str) -> None:
    with Map.create(MapType.HASH, key_size=12, value_size=8, max_entries=9) as table:
        table.pin(Path(pins) / "flows")
    with pytest.raises(UsageError, match="max_entries is 9, and the program's 8") as refused:
        load(read("shared").programs["counting"], pin_root=pins)
    assert f"remove {pins}/flows" in (refused.value.remedy or "")


def test_a_folder_for_shared_maps_is_made_on_a_bpffs_only(pins: str, tmp_path: Path) -> None:
    spec = read("shared").programs["counting"]
    load(spec, pin_root=f"{pins}/new").close()
    assert os.listdir(f"{pins}/new") == ["flows"]
    with pytest.raises(RequirementUnmet, match="not on a bpffs"):
        load(spec, pin_root=tmp_path / "new")
    with pytest.raises(RequirementUnmet, match="not on a bpffs"):
        load(spec, pin_root=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "cmd", [Cmd.BTF_LOAD, Cmd.MAP_CREATE, Cmd.MAP_FREEZE, Cmd.OBJ_PIN, Cmd.PROG_LOAD]
)
def test_a_load_that_fails_leaves_nothing(
    cmd: Cmd, pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = read("shared")
    for last_call in range(1, 30):
        count = 0

        def funnel(asked: int, argument: object, last_call: int = last_call) -> int:
            nonlocal count
            count += asked == cmd
            if asked == cmd and count >= last_call:
                return -errno.ENOMEM
            return bpf.libc_bpf(asked, argument)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(bpf, "funnel", funnel)
            try:
                load_all(obj, pin_root=pins).close()
            except KernelRefused as error:
                number = error.errno
            else:
                break
        assert number == errno.ENOMEM
        assert os.listdir(pins) == []
    else:
        pytest.fail("it never succeeds")
    os.unlink(f"{pins}/flows")


def test_a_shared_map_that_somebody_else_pins_meanwhile_is_used(
    pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read("shared").programs["counting"]
    others: list[Map] = []

    def funnel(cmd: int, argument: attr.ObjPin) -> int:
        if cmd == Cmd.OBJ_PIN and not others:
            with monkeypatch.context() as patched:
                patched.setattr(bpf, "funnel", bpf.libc_bpf)
                others.append(Map.create(MapType.HASH, key_size=12, value_size=8, max_entries=8))
                others[0].pin(Path(pins) / "flows")
        return bpf.libc_bpf(cmd, argument)

    monkeypatch.setattr(bpf, "funnel", funnel)
    with load(spec, pin_root=pins) as program, others[0]:
        assert program.maps["flows"].id == others[0].id


def test_an_object_of_the_other_byte_order_is_refused_with_a_remedy() -> None:
    obj = dataclasses.replace(read("shared"), byteorder="big")
    with pytest.raises(RequirementUnmet, match="big-endian") as refused:
        load_all(obj)
    assert "bpfel" in (refused.value.remedy or "")


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("absent_function", "find the kernel function bpf_no_kernel_has_this"),
        ("absent_symbol", "find the kernel symbol no_such_symbol"),
        ("absent_variable", "find the kernel symbol no_such_variable"),
        ("absent_tracepoint", "no tracepoint no_such_tracepoint"),
    ],
)
def test_what_the_kernel_lacks_is_named(program: str, text: str) -> None:
    with pytest.raises(RequirementUnmet, match=text):
        load(read("absent").programs[program])


def test_a_function_with_another_prototype_is_refused_with_both() -> None:
    if not vmlinux().find("bpf_rdonly_cast", Kind.FUNC):
        pytest.skip("needs bpf_rdonly_cast(), which came with Linux 6.2")
    with pytest.raises(RequirementUnmet, match="the program declares it as") as unmet:
        load(read("absent").programs["other_prototype"])
    assert "in this kernel it is" in unmet.value.cause


def test_a_map_that_does_not_exist_is_the_objects_mistake(pins: str) -> None:
    obj = read("shared")
    maps = {name: spec for name, spec in obj.maps.items() if name != "hits"}
    broken = dataclasses.replace(obj, maps=maps)
    spec = dataclasses.replace(obj.programs["last"], object=broken)
    with pytest.raises(ObjectFormatError, match="there is no map hits"):
        load(spec, pin_root=pins)


def test_a_session_that_is_left_early_closes_everything(
    pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Session) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "hand_over", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_all(read("shared"), pin_root=pins)
    assert os.listdir(pins) == []


@pytest.mark.parametrize(
    "feature",
    [
        old_kernel.names,
        old_kernel.dots,
        old_kernel.all_types,
        old_kernel.types_of_maps,
        old_kernel.attach_types,
        old_kernel.kinds(Kind.VAR, Kind.DATASEC),
        old_kernel.kinds(Kind.FUNC, Kind.FUNC_PROTO),
        old_kernel.map_flags(MapFlags.MMAPABLE),
        old_kernel.map_flags(MapFlags.RDONLY_PROG),
        old_kernel.commands(Cmd.MAP_FREEZE),
        old_kernel.commands(Cmd.PROG_BIND_MAP),
    ],
    ids=lambda feature: feature.__qualname__,
)
def test_an_older_kernel_is_given_what_it_takes(
    feature: old_kernel.Refuses, pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = read("shared")
    with old_kernel.without(monkeypatch, feature), load_all(obj, pin_root=pins) as loaded:
        loaded.programs["counting"].run(PACKET)
        assert loaded.maps["hits"][0] == 1
        is_silent = feature is old_kernel.types_of_maps
        assert is_silent or loaded.notes
    with load_all(obj, pin_root=pins) as loaded:
        assert loaded.notes == ()


def test_a_kernel_without_frags_is_unmet(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read("frags").programs["length_of"]
    with (
        old_kernel.without(monkeypatch, old_kernel.frags),
        pytest.raises(RequirementUnmet, match="fragments") as unmet,
    ):
        load(spec)
    assert 'SEC("xdp")' in (unmet.value.remedy or "")
