# SPDX-License-Identifier: Apache-2.0
"""Where links are pinned, and whose folders are not trusted."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import on_hook, program
from tests.kernel.net import Veth, namespace, rtnetlink
from xdpkit.errors import HookBusy, KernelRefused, RequirementUnmet
from xdpkit.hook import Owner, detach
from xdpkit.hook.pins import Pins
from xdpkit.syscalls.netns import path_of
from xdpkit.uapi.bpf import MapType


def attach_pinned(veth: Veth, pin_root: str) -> str:
    with xdpkit.attach(
        veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root
    ) as attached:
        assert attached.pinned is not None
        return attached.pinned


def test_the_folder_is_roots_alone_and_names_the_hook(veth: Veth, pin_root: str) -> None:
    path = attach_pinned(veth, pin_root)

    status = os.stat(f"{pin_root}/xdpkit")
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, 0)
    interface = veth.interface
    hook = f"{interface.netns_cookie}-{interface.index}"
    assert path == f"{pin_root}/xdpkit/{hook}/link"
    assert os.path.exists(path)


def make_world_writable(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def make_somebodys(folder: Path) -> None:
    folder.mkdir(0o700)
    os.chown(folder, 65534, 65534)


def make_symlink(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(0o700)
    folder.symlink_to(elsewhere)


def make_pin(folder: Path) -> None:
    with xdpkit.load(program()) as loaded:
        loaded.pin(str(folder))


@pytest.mark.parametrize(
    ("squat", "reason"),
    [
        (make_world_writable, r"others may use it \(mode 0777, not 0700\)"),
        (make_somebodys, "user 65534 owns it"),
        (make_symlink, "it is not a folder"),
        (make_pin, "it is not a folder"),
    ],
)
def test_a_folder_that_somebody_else_made_is_refused_and_left_alone(
    veth: Veth, pin_root: str, squat: Callable[[Path], None], reason: str
) -> None:
    folder = Path(pin_root, "xdpkit")
    squat(folder)
    before = os.lstat(folder)

    with pytest.raises(RequirementUnmet, match=f"was not made by xdpkit: {reason}"):
        attach_pinned(veth, pin_root)
    with pytest.raises(RequirementUnmet, match=f"was not made by xdpkit: {reason}"):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)

    assert on_hook(veth) is None
    after = os.lstat(folder)
    assert (after.st_mode, after.st_uid, after.st_ino) == (
        before.st_mode,
        before.st_uid,
        before.st_ino,
    )


def test_pins_in_a_folder_that_is_not_trusted_do_not_count(veth: Veth, pin_root: str) -> None:
    attach_pinned(veth, pin_root)
    os.chmod(f"{pin_root}/xdpkit", 0o777)

    found = on_hook(veth, pin_root)

    assert found is not None
    assert (found.owner, found.pinned) == (Owner.XDPKIT, None)
    assert found.note is not None
    assert "was not made by xdpkit" in found.note
    with pytest.raises(HookBusy, match="but did not pin it below"):
        detach(veth.name, netns=veth.netns, pin_root=pin_root)


def test_a_pin_root_that_is_no_bpffs_is_refused_with_the_remedy(veth: Veth, tmp_path: Path) -> None:
    with pytest.raises(RequirementUnmet, match="is not a BPF file system") as caught:
        attach_pinned(veth, str(tmp_path))

    assert caught.value.remedy == (
        f"mount -t bpf bpf {tmp_path}; or attach without pins: --netlink"
    )
    assert on_hook(veth) is None


def test_a_pin_root_that_is_not_there_is_refused(veth: Veth, tmp_path: Path) -> None:
    with pytest.raises(RequirementUnmet, match="is not a BPF file system") as caught:
        attach_pinned(veth, str(tmp_path / "missing"))

    assert caught.value.remedy == "name one: --pin-root; or attach without pins: --netlink"


def test_a_link_that_moved_away_with_its_interface_makes_room(veth: Veth, pin_root: str) -> None:
    path = attach_pinned(veth, pin_root)
    index = veth.interface.index
    with namespace() as elsewhere:
        with rtnetlink(veth.netns) as connection, open(path_of(elsewhere), "rb") as target:
            connection.link("set", ifname=veth.name, net_ns_fd=target.fileno())
            connection.link(
                "add", ifname="newcomer", index=index, kind="veth", peer={"ifname": "other"}
            )
        newcomer = Veth("newcomer", veth.netns, "other", veth.netns)
        moved = Veth(veth.name, elsewhere, veth.peer, veth.netns)

        assert attach_pinned(newcomer, pin_root) == path

        found = on_hook(moved, pin_root)
        assert found is not None
        assert found.pinned == f"{os.path.dirname(path)}-{found.link_id}/link"
        detach(newcomer.name, netns=newcomer.netns, pin_root=pin_root)
        assert on_hook(moved, pin_root) is not None
        detach(moved.name, netns=moved.netns, pin_root=pin_root)
    assert os.listdir(f"{pin_root}/xdpkit") == []


def test_an_empty_folder_that_a_crash_left_goes_with_the_next_change(
    veth: Veth, pin_root: str
) -> None:
    attach_pinned(veth, pin_root)
    left = Path(pin_root, "xdpkit", "123-45")
    left.mkdir(0o700)

    detach(veth.name, netns=veth.netns, pin_root=pin_root)

    assert not left.exists()


def test_what_is_not_a_hooks_folder_is_left_alone(veth: Veth, pin_root: str) -> None:
    attach_pinned(veth, pin_root)
    other = Path(pin_root, "xdpkit", "records")
    other.mkdir(0o700)

    detach(veth.name, netns=veth.netns, pin_root=pin_root)

    assert other.is_dir()


def test_changes_wait_for_each_other(pin_root: str) -> None:
    pins = Pins(pin_root)
    with pins.locked("test", create=True):
        folder = os.open(pins.folder, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(folder)
    with pins.locked("test", create=False) as present:
        assert present


@pytest.mark.needs("bpf-link-xdp")
def test_a_pinned_programs_tail_calls_outlive_the_process(veth: Veth, pin_root: str) -> None:
    spec = program("program_array.c", "constant_slot")
    name, array = veth.name, "jumps"
    with xdpkit.attach(name, spec, pin=True, netns=veth.netns, pin_root=pin_root, force=True) as it:
        held = dict(it.maps[array])
        number = it.maps[array].id
        arrays = {
            f"map-{it.program.id}-{each.id}"
            for each in it.maps.values()
            if each.type == MapType.PROG_ARRAY
        }
        link = it.pinned
    assert held
    assert link is not None
    # The process has closed all it had: only the pins hold the array.
    with xdpkit.Map.from_id(number) as still:
        assert dict(still) == held
    assert set(os.listdir(os.path.dirname(link))) == {"link", *arrays}
    xdpkit.detach(name, netns=veth.netns, pin_root=pin_root)
    assert not os.path.exists(os.path.dirname(link))


def test_an_attach_that_fails_leaves_no_pinned_map(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise KernelRefused("attach", errno=errno.EINVAL)

    monkeypatch.setattr("xdpkit.syscalls.bpf.link_create", refuse)
    spec = program("program_array.c", "constant_slot")
    with pytest.raises(KernelRefused):
        xdpkit.attach(veth.name, spec, pin=True, netns=veth.netns, pin_root=pin_root, force=True)
    assert not list(Path(pin_root).rglob("map-*"))


def test_the_pins_of_an_attach_that_was_killed_are_swept(veth: Veth, pin_root: str) -> None:
    hook = Path(pin_root, "xdpkit", "1-1")
    hook.mkdir(parents=True, mode=0o700)
    hook.parent.chmod(0o700)
    with xdpkit.load(program("program_array.c", "constant_slot")) as loaded:
        loaded.maps["jumps"].pin(hook / "map-7")
    xdpkit.attach(veth.name, program(), pin=True, netns=veth.netns, pin_root=pin_root).close()
    assert not hook.exists()
    xdpkit.detach(veth.name, netns=veth.netns, pin_root=pin_root)


def test_what_nobody_of_us_made_is_no_obstacle_and_is_told(veth: Veth, pin_root: str) -> None:
    attach_pinned(veth, pin_root)
    folder = Path(pin_root, "xdpkit")
    (folder / "1-4").mkdir(0o700)
    (folder / "1-4" / "link").mkdir()
    (folder / "1-5").symlink_to(folder / "1-4")
    with xdpkit.load(program()) as loaded:
        loaded.pin(folder / "1-6")

    told = {each.path: each.error for each in xdpkit.clean(pin_root=pin_root)}

    assert set(told) == {str(folder / name) for name in ("1-4", "1-5", "1-6")}
    assert told[str(folder / "1-5")] == told[str(folder / "1-6")] == "it is not a folder"
    assert str(told[str(folder / "1-4")]).startswith("its pins cannot be read")
    detach(veth.name, netns=veth.netns, pin_root=pin_root)
    assert on_hook(veth, pin_root) is None


def test_a_lock_that_is_held_too_long_is_told(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach_pinned(veth, pin_root)
    monkeypatch.setattr("xdpkit.kernel.folder._PATIENCE", 0.01)
    folder = os.open(f"{pin_root}/xdpkit", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(HookBusy, match="another process has held the lock on") as caught:
            detach(veth.name, netns=veth.netns, pin_root=pin_root)
    finally:
        os.close(folder)
    assert caught.value.remedy == f"see which: fuser -v {pin_root}/xdpkit"
    detach(veth.name, netns=veth.netns, pin_root=pin_root)


def test_a_mount_over_a_folder_with_something_in_it_is_no_remedy(
    veth: Veth, tmp_path: Path
) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(RequirementUnmet, match="is not a BPF file system") as caught:
        attach_pinned(veth, str(tmp_path))
    assert caught.value.remedy == "name one: --pin-root; or attach without pins: --netlink"


def test_a_root_that_is_no_folder_is_not_to_be_removed(veth: Veth) -> None:
    with pytest.raises(RequirementUnmet, match="is not a BPF file system") as caught:
        detach(veth.name, netns=veth.netns, pin_root="/dev/null")
    assert caught.value.remedy == "name one: --pin-root"
