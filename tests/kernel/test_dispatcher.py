# SPDX-License-Identifier: Apache-2.0
"""libxdp's dispatcher is recognised, with what it calls, and nothing else is taken for it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import xdpkit
from tests.corpus import build
from tests.kernel.attaching import BPFFS, program
from tests.kernel.compiled import returning
from tests.kernel.net import Veth
from tests.kernel.xdp_loader import xdp_loader
from xdpkit.hook.dispatcher import Component, Dispatcher, dispatcher_of
from xdpkit.kernel import Map, Program
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import Cmd, LinkType, MapFlags, MapType, XdpAction

SOURCE = Path(__file__).parent / "c" / "dispatcher.c"
IFINDEX = 7
RETVAL = 1 << 31
VERSIONS = (1, 2, 3)


def fake(layout: int, *, name: str = "xdp_dispatcher", **settings: int) -> Program:
    """Load a program with the settings of a dispatcher that calls two, after PASS and after TX."""
    compilers = [each for each in build.compilers() if each.family != "gcc-bpf"]
    if not compilers:
        pytest.skip("no BPF compiler: apt-get install clang")
    built = build.build(SOURCE, compilers[0], flags=(f"-DVERSION={layout}",))
    obj = xdpkit.read(built.path)
    fields: dict[str, object] = {
        "count": 2,
        "chain_call": [1 << XdpAction.PASS | RETVAL, 1 << XdpAction.TX | RETVAL, *[0] * 8],
        "priority": [10, 50, *[0] * 8],
    }
    if layout > 1:
        fields |= {"magic": 236, "version": layout, "frags": 1, "flags": [0] * 10}
    if layout > 2:
        fields |= {"bound": 0}
    obj.variables["settings"] = fields | settings
    return xdpkit.load(obj.programs[name])


@contextlib.contextmanager
def pinned(bpffs: Path, dispatcher_id: int, *names: str) -> Iterator[list[Component]]:
    """Pin programs as libxdp pins components; yield how the first ones of a fake are told of."""
    folder = bpffs / "xdp" / f"dispatch-{IFINDEX}-{dispatcher_id}"
    folder.mkdir(0o700, parents=True, exist_ok=True)
    components = []
    for number, name in enumerate(names):
        path = str(folder / f"prog{number}-prog")
        with returning(XdpAction.PASS, name=name) as loaded:
            loaded.pin(path)
            components.append(
                Component(
                    loaded.id,
                    name,
                    loaded.tag,
                    (10, 50)[number],
                    (("pass",), ("tx",))[number],
                    path,
                )
            )
    yield components


def look(of: Program, bpffs: Path | str) -> Dispatcher:
    found = dispatcher_of(of.fileno(), IFINDEX, bpffs=str(bpffs))
    assert found is not None
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dispatcher_is_recognised_with_its_components(version: int, bpffs: Path) -> None:
    with fake(version) as loaded, pinned(bpffs, loaded.id, "first", "second") as components:
        found = look(loaded, bpffs)

    frags = None if version == 1 else True
    assert found == Dispatcher(version, frags, tuple(components), None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_program_of_another_name_is_no_dispatcher(version: int, bpffs: Path) -> None:
    with fake(version, name="another_name") as loaded:
        assert dispatcher_of(loaded.fileno(), IFINDEX, bpffs=str(bpffs)) is None


def test_a_program_that_only_has_the_name_is_no_dispatcher(bpffs: Path) -> None:
    with returning(XdpAction.PASS, name="xdp_dispatcher") as loaded:
        assert dispatcher_of(loaded.fileno(), IFINDEX, bpffs=str(bpffs)) is None


@pytest.mark.parametrize("version", [2, 3])
def test_settings_with_another_magic_number_are_none(version: int, bpffs: Path) -> None:
    with fake(version, magic=235) as loaded, pinned(bpffs, loaded.id, "first", "second"):
        assert dispatcher_of(loaded.fileno(), IFINDEX, bpffs=str(bpffs)) is None


def test_what_a_program_can_change_itself_are_no_settings(bpffs: Path) -> None:
    data = bytes([236, 2, 1, 0]) + bytes(120)
    with (
        returning(XdpAction.PASS, name="xdp_dispatcher") as loaded,
        Map.create(MapType.ARRAY, key_size=4, value_size=124, max_entries=1) as table,
    ):
        table[0] = data
        loaded.bind(table)
        assert dispatcher_of(loaded.fileno(), IFINDEX, bpffs=str(bpffs)) is None


def test_settings_that_their_maker_lets_nobody_read_are_none(bpffs: Path) -> None:
    flags = MapFlags.RDONLY_PROG | MapFlags.WRONLY
    with (
        returning(XdpAction.PASS, name="xdp_dispatcher") as loaded,
        Map.create(MapType.ARRAY, key_size=4, value_size=124, max_entries=1, flags=flags) as table,
    ):
        loaded.bind(table)
        assert dispatcher_of(loaded.fileno(), IFINDEX, bpffs=str(bpffs)) is None


def test_a_later_version_is_shown_with_what_is_pinned(bpffs: Path) -> None:
    with (
        fake(3, version=9) as loaded,
        pinned(bpffs, loaded.id, "first", "second") as components,
    ):
        (bpffs / "xdp" / f"dispatch-{IFINDEX}-{loaded.id}" / "another").mkdir()
        found = look(loaded, bpffs)

    assert (found.version, found.frags, found.note) == (9, None, None)
    assert [each.id for each in found.programs] == [each.id for each in components]
    assert {(each.priority, each.chain_call) for each in found.programs} == {(None, ())}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hostile_number_of_components_is_clamped_and_said(version: int, bpffs: Path) -> None:
    with (
        fake(version, count=255) as loaded,
        pinned(bpffs, loaded.id, "first", "second") as components,
    ):
        found = look(loaded, bpffs)

    assert found.programs == (*components, *[Component(priority=0)] * 8)
    assert found.note is not None
    assert found.note.startswith("it says 255 programs, where 10 is the most; ")
    assert "prog9-prog: nothing is pinned there" in found.note


def test_a_pin_that_is_no_program_is_passed_over_and_said(bpffs: Path) -> None:
    with fake(2) as loaded, pinned(bpffs, loaded.id, "first") as (first,):
        path = f"{os.path.dirname(str(first.pinned))}/prog1-prog"
        with Map.create(MapType.ARRAY, key_size=4, value_size=8, max_entries=1) as table:
            table.pin(path)
        found = look(loaded, bpffs)

    assert found.programs == (first, Component(priority=50, chain_call=("tx",)))
    assert found.note == f"open {path}: it is a map, not a program"


def test_a_folder_where_a_pin_should_be_is_passed_over_and_said(bpffs: Path) -> None:
    with fake(2) as loaded, pinned(bpffs, loaded.id, "first") as (first,):
        path = Path(str(first.pinned)).with_name("prog1-prog")
        path.mkdir()
        found = look(loaded, bpffs)

    assert found.programs == (first, Component(priority=50, chain_call=("tx",)))
    assert found.note is not None
    assert found.note.startswith(f"open {path}: ")


def test_the_pins_of_the_dispatcher_before_are_not_shown(bpffs: Path) -> None:
    with (
        fake(2) as before,
        fake(2) as now,
        pinned(bpffs, before.id, "old", "older"),
        pinned(bpffs, now.id, "first", "second") as components,
    ):
        assert look(now, bpffs).programs == tuple(components)


def test_the_pins_of_another_interface_are_not_shown(bpffs: Path) -> None:
    with fake(2) as loaded, pinned(bpffs, loaded.id, "first", "second"):
        found = dispatcher_of(loaded.fileno(), IFINDEX + 1, bpffs=str(bpffs))

    assert found is not None
    assert {each.id for each in found.programs} == {None}


def test_without_the_pins_the_settings_remain_and_the_reason_is_said(bpffs: Path) -> None:
    with fake(2) as loaded:
        found = look(loaded, bpffs)
        folder = bpffs / "xdp" / f"dispatch-{IFINDEX}-{loaded.id}"

    assert found.programs == (
        Component(priority=10, chain_call=("pass",)),
        Component(priority=50, chain_call=("tx",)),
    )
    assert found.note == f"the pins of its programs are not to be seen: {folder}"


def test_pins_in_a_folder_of_somebody_elses_are_not_believed(bpffs: Path) -> None:
    with fake(2) as loaded, pinned(bpffs, loaded.id, "first", "second"):
        os.chown(bpffs / "xdp", 65534, 65534)
        found = look(loaded, bpffs)

    assert {each.id for each in found.programs} == {None}
    assert found.note == f"the pins in {bpffs}/xdp say nothing: user 65534 owns it"


def test_without_the_right_to_look_maps_up_the_pins_remain_and_the_reason_is_said(
    bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bpf.funnel

    def forbid(cmd: int, argument: Any) -> int:
        name = Cmd(cmd).name
        return -errno.EPERM if "_BY_ID" in name or "_NEXT_ID" in name else real(cmd, argument)

    with fake(2) as loaded, pinned(bpffs, loaded.id, "first", "second") as components:
        (map_id,) = loaded.info().map_ids
        monkeypatch.setattr(bpf, "funnel", forbid)
        found = look(loaded, bpffs)

    assert (found.version, found.frags) == (None, None)
    assert [(each.id, each.priority) for each in found.programs] == [
        (each.id, None) for each in components
    ]
    assert found.note is not None
    assert f"open map {map_id}: " in found.note
    assert "list the link ids: " in found.note


@pytest.mark.needs("freplace")
@pytest.mark.parametrize("one_by_one", [True, False])
def test_the_dispatcher_of_xdp_loader_is_told_as_xdp_loader_tells_it(
    veth: Veth, one_by_one: bool
) -> None:
    path = program().object.path
    other = program("packet.c", "packet").object.path
    with xdp_loader(veth) as run:
        if one_by_one:
            run("load", "--prio", "20", "--actions", "XDP_PASS,XDP_DROP", veth.name, path)
            run("load", "--prio", "10", "--actions", "XDP_TX", veth.name, other)
        else:
            run("load", veth.name, other, path)
        told = run("status", veth.name).stdout
        with Program.from_id(veth.interface.xdp.native or 0) as loaded:
            found = dispatcher_of(loaded.fileno(), veth.interface.index)
            folder = f"{BPFFS}/xdp/dispatch-{veth.interface.index}-{loaded.id}"

    assert found is not None
    assert found.note is None
    assert found.version in (2, 3)
    expected = [(10, ("tx",)), (20, ("drop", "pass"))] if one_by_one else [(50, ("pass",))] * 2
    assert [(each.priority, each.chain_call) for each in found.programs] == expected
    if one_by_one:
        assert [each.name for each in found.programs] == ["packet", "minimal"]
    rows = [line.split() for line in told.splitlines() if line.startswith(" =>")]
    assert rows == [
        [
            "=>",
            str(each.priority),
            each.name,
            str(each.id),
            each.tag,
            ",".join(f"XDP_{action.upper()}" for action in each.chain_call),
        ]
        for each in found.programs
    ]
    assert [each.pinned for each in found.programs] == [
        f"{folder}/prog0-prog",
        f"{folder}/prog1-prog",
    ]


@pytest.mark.needs("freplace")
@pytest.mark.parametrize("count", [1, 2])
def test_components_whose_pins_are_not_to_be_seen_are_found_by_their_links(
    veth: Veth, count: int
) -> None:
    with xdp_loader(veth) as run:
        run("load", veth.name, *[program().object.path] * count)
        if not links_say_their_target():
            pytest.skip("needs links that say their target, which came with Linux 5.13")
        with Program.from_id(veth.interface.xdp.native or 0) as loaded:
            found = dispatcher_of(loaded.fileno(), veth.interface.index)
            unpinned = dispatcher_of(loaded.fileno(), veth.interface.index, bpffs="/nowhere")

    assert found is not None
    assert unpinned is not None
    assert len(unpinned.programs) == count
    assert unpinned.programs == tuple(replace(each, pinned=None) for each in found.programs)
    assert {each.name for each in unpinned.programs} == {"minimal"}
    assert unpinned.note is not None


def links_say_their_target() -> bool:
    """Whether any link says what it is attached to; one is attached to a dispatcher."""
    for number in bpf.ids(ObjectKind.LINK):
        descriptor = bpf.fd_by_id(ObjectKind.LINK, number)
        info = attr.TracingLinkInfo()
        if descriptor is not None:
            with descriptor:
                bpf.get_info(descriptor.fileno(), info)
        if info.type == LinkType.TRACING and info.target_obj_id:
            return True
    return False
