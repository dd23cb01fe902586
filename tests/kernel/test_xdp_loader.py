# SPDX-License-Identifier: Apache-2.0
"""xdpkit and xdp-loader on the same hook: each sees the other's program and leaves it alone."""

from __future__ import annotations

import subprocess

import pytest

import xdpkit
from tests.kernel.attaching import attach_by_netlink, on_hook, program
from tests.kernel.net import Veth
from tests.kernel.process import xdpkit_command
from tests.kernel.xdp_loader import xdp_loader
from xdpkit import Mode
from xdpkit.errors import HookBusy
from xdpkit.hook import Owner, Via
from xdpkit.probes import Answer, probe

BUSY = "Device or resource busy"


def object_path() -> str:
    path = program().object.path
    assert path is not None
    return path


def test_xdp_loader_shows_our_program(veth: Veth, pin_root: str) -> None:
    with (
        xdp_loader(veth) as run,
        xdpkit.attach(
            veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root
        ) as attached,
    ):
        told = run("status", veth.name).stdout
        loaded = attached.program

        (row,) = (line.split() for line in told.splitlines() if line.startswith(veth.name))
        assert row == [veth.name, "minimal", "native", str(loaded.id), loaded.tag]
        attached.detach()


def test_xdp_loader_refuses_to_load_beside_our_program(veth: Veth, pin_root: str) -> None:
    with (
        xdp_loader(veth) as run,
        xdpkit.attach(
            veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root
        ) as attached,
    ):
        refused = run("load", veth.name, object_path(), check=False)
        ours = on_hook(veth, pin_root)
        attached.detach()

    assert refused.returncode != 0
    # "libxdp: Existing program is not using a dispatcher, can't replace; unload first"
    assert "not using a dispatcher" in refused.stderr
    assert BUSY in refused.stderr
    assert ours is not None
    assert (ours.program.id, ours.owner) == (attached.program.id, Owner.XDPKIT)


def test_xdp_loader_cannot_unload_what_our_link_holds(veth: Veth, pin_root: str) -> None:
    with (
        xdp_loader(veth) as run,
        xdpkit.attach(
            veth.name, program(), netns=veth.netns, pin=True, pin_root=pin_root
        ) as attached,
    ):
        number = attached.program.id
        for choice in (["--all"], ["--id", number]):
            refused = run("unload", veth.name, *choice, check=False)
            ours = on_hook(veth, pin_root)
            assert refused.returncode != 0
            # "Kernel error message: Can't replace active BPF XDP link"
            assert BUSY in refused.stderr
            assert ours is not None
            assert (ours.program.id, ours.owner) == (number, Owner.XDPKIT)
        attached.detach()


def test_xdp_loader_unloads_what_netlink_holds_whoever_attached_it(veth: Veth) -> None:
    attach_by_netlink(veth)
    with xdp_loader(veth) as run:
        run("unload", veth.name, "--all")

    assert on_hook(veth) is None


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])
def test_the_status_tells_of_what_xdp_loader_loaded(veth: Veth, mode: Mode) -> None:
    word = {Mode.NATIVE: "native", Mode.GENERIC: "skb"}[mode]
    with xdp_loader(veth) as run:
        run("load", "--mode", word, veth.name, object_path())
        told = xdpkit_command("status", "--netns", veth.netns, "--json", veth.name)
        (row,) = (
            line.split()
            for line in run("status", veth.name).stdout.splitlines()
            if line.startswith(veth.name)
        )

    assert told.status == 0, told.messages
    (found,) = told.json["interfaces"][0]["attached"]
    prog = found["prog"]
    assert row == [veth.name, prog["name"], word, str(prog["id"]), prog["tag"]]
    assert (found["mode"], found["via"], found["pinned"]) == (mode.value, "netlink", None)
    # Where freplace is refused, xdp-loader falls back to the program itself, as any tool loads it.
    joined = probe("freplace").answer is Answer.YES
    assert prog["name"] == ("xdp_dispatcher" if joined else "minimal")
    assert found["owner"] == ("libxdp" if joined else "unknown")


def test_we_refuse_what_xdp_loader_loaded_and_the_remedy_works(veth: Veth) -> None:
    with xdp_loader(veth) as run:
        run("load", veth.name, object_path())
        before = on_hook(veth)
        with pytest.raises(HookBusy, match=f"{veth.name} already has program") as caught:
            xdpkit.attach(veth.name, program(), netns=veth.netns)
        after = on_hook(veth)
        remedy = str(caught.value.remedy).removeprefix("detach it first: ")
        subprocess.run(remedy, shell=True, check=True)

        assert before is not None
        assert after == before
        assert before.via is Via.NETLINK
        assert (f"xdp-loader unload {veth.name} --all" in remedy) is (before.owner is Owner.LIBXDP)
        with xdpkit.attach(veth.name, program(), netns=veth.netns) as attached:
            assert veth.interface.xdp.native == attached.program.id
