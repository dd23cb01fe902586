# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of a frame to a port, it is counted: on the port, and under the standard names.

Where nothing can count it (a broadcast in native mode, which skips ports in silence), that is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

import xdpkit
from tests.kernel.failing import Scene, scene
from tests.kernel.fates import set_gro
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from tests.kernel.ports_net import source
from tests.kernel.process import shipped
from xdpkit import monitor
from xdpkit.monitor.doctor import Complaint
from xdpkit.monitor.model import Snapshot
from xdpkit.monitor.portcounts import PortState, TableCounts
from xdpkit.monitor.samples import (
    BROADCAST_ERRORS,
    ERRORS,
    PORT_ABSENT,
    PORT_ERRORS,
    PORT_TRANSMIT_DROPS,
    PORT_UNASSIGNED,
    REDIRECT_ERRORS,
    TRANSMIT_DROPS,
    samples,
)
from xdpkit.ports import PortTable
from xdpkit.uapi.bpf import XdpAction

# The resident programs count for the whole machine, and have so many slots for it.
pytestmark = [pytest.mark.needs("live-frames", "bpf-link-xdp"), pytest.mark.alone]

FRAMES = 200
NATIVE, GENERIC = ("native",), ("generic",)
BOTH = NATIVE + GENERIC


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    """The resident programs; they count until the last test here."""
    shipped("monitor.o")
    if monitor.installed() is not None:
        pytest.skip("this machine counts errors itself: xdpkit monitor remove")
    monitor.install(transmit=True)
    yield
    monitor.remove()


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """A network namespace for all of them: each makes its own interfaces in it."""
    with namespace() as name:
        yield name


@dataclass(frozen=True, slots=True)
class Stage:
    """A scene, and a port table for what comes in there.

    Attributes:
        scene: where frames come in. table: the table.
        bad: the interface of port 0, to which no frame gets.
    """

    scene: Scene
    table: PortTable
    bad: Veth

    def add(self, veth: Veth, *, egress: int | None = None) -> None:
        """Make an interface the next port, with a program that returns this for what is sent."""
        program = None
        if egress is not None:
            found = source("egress").snapshot()
            found.variables["action"] = egress
            program = found.programs["egress"]
        self.table.add(veth.name, netns=self.scene.netns, egress=program, force=True)

    def sends_by(self, program: str) -> None:
        """Attach a program that sends each frame to the table."""
        self.scene.attach(self.table.load(source("ported").programs[program]))

    def report(self) -> TableCounts:
        """Return what is counted for the table."""
        (table,) = self.snapshot().tables
        return table

    def snapshot(self) -> Snapshot:
        return monitor.take(netns=self.scene.netns, interfaces=[self.scene.near.name])

    def sums(self) -> Mapping[str, int]:
        """Return what is counted under the standard names, by reason; of the table or the scene."""
        found: dict[str, int] = {}
        for sample in samples(self.snapshot()):
            labels = sample.labelled
            if "table" not in labels and not self.scene.owns(labels):
                continue
            if sample.metric is TRANSMIT_DROPS and labels["source"] == "lo":
                # Those of the sending itself.
                continue
            if sample.value and sample.metric in _NAMES:
                key = f"{_NAMES[sample.metric]}{labels.get('reason', '')}"
                found[key] = found.get(key, 0) + sample.value
        return found


_NAMES = {
    PORT_ABSENT: "port absent",
    PORT_ERRORS: "port ",
    PORT_TRANSMIT_DROPS: "port transmit_drops",
    BROADCAST_ERRORS: "broadcast ",
    PORT_UNASSIGNED: "unassigned",
    ERRORS: "error ",
    REDIRECT_ERRORS: "redirect ",
    TRANSMIT_DROPS: "transmit_drops",
}


@dataclass(frozen=True, slots=True)
class Loss:
    """A way to lose frames to a port.

    Attributes:
        name: what goes wrong.
        stage: makes port 0 such that it happens.
        counted: the standard names under which each of the frames is, and no others.
        modes: where it can be provoked.
        state: the port's. troubles: what is said to be wrong with it.
        program: sends the frames. size: bytes of each.
    """

    name: str
    stage: Callable[[Stage], None]
    counted: tuple[str, ...]
    modes: tuple[str, ...] = BOTH
    state: PortState = PortState.UP
    troubles: tuple[str, ...] = ()
    program: str = "to_port"
    size: int = 64


def _absent(stage: Stage) -> None:
    """Its interface goes with the namespace that it is in."""
    with namespace() as away:
        veth = make_veth(away, stage.scene.netns)
        stage.table.add(veth.name, netns=away, force=True)
    # The kernel takes a namespace apart in the background.
    with rtnetlink(stage.scene.netns) as connection:
        wait_until(lambda: not connection.link_lookup(ifname=veth.peer))


def _down(stage: Stage) -> None:
    stage.add(stage.bad)
    stage.scene.set(stage.bad.name, state="down")


def _small_mtu(stage: Stage) -> None:
    stage.scene.set(stage.bad.name, mtu=500)
    stage.add(stage.bad)
    stage.add(stage.scene.target())


def _idle_peer(stage: Stage) -> None:
    set_gro(stage.scene.netns, stage.bad.peer, on=False)
    stage.add(stage.bad)


def _peer_down(stage: Stage) -> None:
    stage.add(stage.bad)
    stage.scene.set(stage.bad.peer, state="down")


def _egress(action: int) -> Callable[[Stage], None]:
    return lambda stage: stage.add(stage.bad, egress=action)


LOSSES = (
    Loss(
        "absent",
        _absent,
        ("port absent", "error aborted"),
        state=PortState.ABSENT,
        troubles=("absent",),
    ),
    Loss(
        "down",
        _down,
        ("port ENETDOWN", "redirect ENETDOWN"),
        state=PortState.DOWN,
        troubles=("down",),
    ),
    Loss(
        "frames_longer_than_its_mtu",
        _small_mtu,
        ("port EMSGSIZE", "redirect EMSGSIZE"),
        troubles=("mtu",),
        size=1000,
    ),
    Loss(
        "its_peer_receives_nothing_from_xdp",
        _idle_peer,
        ("port EOPNOTSUPP", "redirect EOPNOTSUPP"),
        NATIVE,
        troubles=("no-transmit",),
    ),
    Loss(
        "its_peer_is_down",
        _peer_down,
        ("port transmit_drops", "transmit_drops"),
        NATIVE,
        troubles=("no-carrier",),
    ),
    # The veth drops it as it would a packet of the stack's.
    Loss("its_peer_is_down", _peer_down, (), GENERIC, troubles=("no-carrier",)),
    Loss(
        "its_program_drops",
        _egress(XdpAction.DROP),
        ("port transmit_drops", "transmit_drops"),
        NATIVE,
    ),
    # The kernel frees the frame without a word: dev_map_bpf_prog_run_skb().
    Loss("its_program_drops", _egress(XdpAction.DROP), (), GENERIC),
    *(
        Loss(
            f"its_program_returns_{value}",
            _egress(value),
            (f"port {reason}", f"error {reason}", *more),
            modes,
        )
        for value, reason in (
            (XdpAction.ABORTED, "aborted"),
            (42, "invalid"),
            (XdpAction.TX, "unsupported"),
        )
        for modes, more in ((NATIVE, ("port transmit_drops", "transmit_drops")), (GENERIC, ()))
    ),
    # is_valid_dst() in kernel/bpf/devmap.c says no, and that is all.
    Loss(
        "a_broadcast_skips_it",
        _down,
        (),
        NATIVE,
        state=PortState.DOWN,
        troubles=("down",),
        program="to_others",
    ),
    Loss(
        "a_broadcast_skips_it_for_its_mtu",
        _small_mtu,
        (),
        NATIVE,
        troubles=("mtu",),
        program="to_others",
        size=1000,
    ),
    Loss(
        "a_broadcast_skips_it_as_it_takes_no_frames",
        _idle_peer,
        (),
        NATIVE,
        troubles=("no-transmit",),
        program="to_others",
    ),
    Loss(
        "a_broadcast_goes_to_a_peer_that_is_down",
        _peer_down,
        ("port transmit_drops", "transmit_drops"),
        NATIVE,
        troubles=("no-carrier",),
        program="to_others",
    ),
    Loss(
        "a_broadcast_ends_at_it",
        _down,
        ("broadcast ENETDOWN", "redirect ENETDOWN"),
        GENERIC,
        state=PortState.DOWN,
        troubles=("down",),
        program="to_others",
    ),
)
CASES = [(loss, mode) for loss in LOSSES for mode in loss.modes]


@contextlib.contextmanager
def staged(place: str, mode: str) -> Iterator[Stage]:
    with scene(place, mode) as made, PortTable.create("lan") as table:
        try:
            yield Stage(made, table, made.target())
        finally:
            table.destroy(force=True)


@pytest.mark.parametrize(
    ("loss", "mode"), CASES, ids=[f"{loss.name}-{mode}" for loss, mode in CASES]
)
def test_each_frame_that_a_port_loses_is_counted_where_it_should(
    loss: Loss, mode: str, place: str, installed: None
) -> None:
    with staged(place, mode) as stage:
        loss.stage(stage)
        stage.sends_by(loss.program)
        met = stage.scene.send(FRAMES, loss.size)
        wait_until(lambda: stage.scene.met() == met, lambda: f"{stage.scene.met()} of {met}")
        expected = dict.fromkeys(loss.counted, met)
        wait_until(lambda: stage.sums() == expected, lambda: f"{stage.sums()}, not {expected}")
        port = stage.report().ports[0]
        is_on_port = any(each.startswith("port ") for each in loss.counted)
        assert port.lost == (met if is_on_port else 0)
        assert (port.state, [each.kind for each in port.troubles]) == (
            loss.state,
            list(loss.troubles),
        )


def test_frames_that_a_full_queue_does_not_take_are_told_by_driver_and_kernel(
    place: str, installed: None
) -> None:
    with staged(place, "native") as stage:
        stage.add(stage.bad)
        stage.scene.stall(stage.bad)
        stage.sends_by("to_port")
        met = stage.scene.send(500, 64)
        wait_until(lambda: stage.scene.met() == met, lambda: f"{stage.scene.met()} of {met}")
        dropped = stage.scene.statistics(stage.bad.name)["tx_dropped"]
        assert dropped
        wait_until(
            lambda: stage.report().ports[0].transmit_drops == dropped, lambda: f"{stage.report()}"
        )
        port = stage.report().ports[0]
        assert (port.xmit_errors, port.lost, port.errors) == (dropped, dropped, ())


def test_a_stopped_queue_fails_frames_in_generic_mode(place: str, installed: None) -> None:
    with staged(place, "generic") as stage:
        # By GRO alone, the peer would not receive such frames by NAPI.
        bad = stage.scene.target(program=True)
        stage.add(bad)
        with rtnetlink(place) as connection:
            # Without a queueing discipline a veth says that it took what it drops.
            index = stage.scene.index(bad.name)
            connection.tc("replace", "pfifo_fast", index, handle=0x10000)
        stage.scene.stall(bad)
        stage.sends_by("to_port")
        met = stage.scene.send(500, 64)
        wait_until(lambda: stage.scene.met() == met, lambda: f"{stage.scene.met()} of {met}")
        dropped = stage.scene.statistics(bad.name)["tx_dropped"]
        assert dropped
        expected = {"port tx_failed": dropped, "error tx_failed": dropped}
        wait_until(lambda: stage.sums() == expected, lambda: f"{stage.sums()}, not {expected}")
        assert stage.report().ports[0].lost == dropped


def test_a_redirect_by_the_interfaces_index_is_the_ports_too(place: str, installed: None) -> None:
    with staged(place, "native") as stage:
        stage.add(stage.bad)
        stage.scene.set(stage.bad.name, state="down")
        stage.scene.redirect(stage.scene.index(stage.bad.name))
        met = stage.scene.send(FRAMES, 64)
        expected = {"port ENETDOWN": met, "redirect ENETDOWN": met}
        wait_until(lambda: stage.sums() == expected, lambda: f"{stage.sums()}, not {expected}")


def test_what_comes_and_goes_by_a_port_is_counted(place: str, installed: None) -> None:
    with staged(place, "native") as stage:
        stage.add(stage.scene.near)
        stage.add(stage.bad)
        program = stage.table.load(source("ported").programs["to_others"])
        stage.scene.attach(program)
        met = stage.scene.send(FRAMES, 64)

        def counts() -> list[tuple[int | None, int | None]]:
            return [(each.received, each.sent) for each in stage.report().ports]

        # The port that they came in by is left out.
        wait_until(lambda: counts() == [(met, 0), (0, met)], lambda: f"{counts()}, not {met}")
        assert [each.lost for each in stage.report().ports] == [0, 0]


def test_an_interface_in_two_tables_has_its_losses_in_both(place: str, installed: None) -> None:
    with staged(place, "native") as stage, PortTable.create("other") as other:
        stage.add(stage.bad)
        other.add(stage.bad.name, netns=place)
        stage.scene.set(stage.bad.name, state="down")
        stage.sends_by("to_port")
        met = stage.scene.send(FRAMES, 64)
        wait_until(lambda: stage.scene.met() == met, lambda: f"{stage.scene.met()} of {met}")
        assert [each.ports[0].lost for each in stage.snapshot().tables] == [met, met]
        other.destroy()


def test_frames_to_a_number_that_no_port_has_are_the_tables(place: str, installed: None) -> None:
    with staged(place, "native") as stage:
        obj = source("ported").snapshot()
        obj.variables["port"] = 5
        stage.scene.attach(stage.table.load(obj.programs["to_port"]))
        met = stage.scene.send(FRAMES, 64)
        wait_until(lambda: stage.report().unassigned == {5: met}, lambda: f"{stage.report()}")
        expected = {"unassigned": met, "error aborted": met}
        wait_until(lambda: stage.sums() == expected, lambda: f"{stage.sums()}, not {expected}")


@pytest.mark.parametrize(("mode", "is_behind_served"), [("native", True), ("generic", False)])
def test_a_broadcast_goes_on_behind_a_port_that_is_down_in_native_mode_only(
    mode: str, is_behind_served: bool, place: str, installed: None
) -> None:
    with staged(place, mode) as stage:
        for veth in (stage.scene.target(), stage.bad, stage.scene.target()):
            stage.add(veth)
        stage.scene.set(stage.bad.name, state="down")
        stage.sends_by("to_others")
        met = stage.scene.send(FRAMES, 64)

        def sent() -> list[int | None]:
            return [each.sent for each in stage.report().ports]

        expected = [met, 0, met if is_behind_served else 0]
        wait_until(lambda: sent() == expected, lambda: f"{sent()}, not {expected}")
        (trouble,) = stage.report().ports[1].troubles
        assert (trouble.kind, trouble.is_skipped) == ("down", True)


def test_the_doctor_says_what_is_wrong_with_ports_and_what_helps(
    place: str, installed: None
) -> None:
    with staged(place, "native") as stage:
        good = stage.scene.target()
        for veth in (stage.bad, good):
            stage.add(veth)
        stage.scene.set(stage.bad.name, state="down")
        stage.sends_by("to_port")
        stage.scene.send(FRAMES, 64)
        wait_until(lambda: stage.report().ports[0].lost, lambda: f"{stage.report()}")
        found = monitor.examine(place, [stage.bad.name, good.name])
        assert found.unseen == ()
        (down,) = (each for each in found.complaints if each.kind == "port-down")
        assert down.what == f"port 0 ({stage.bad.name}) of lan: {stage.bad.name} is down"
        assert down.packets == stage.report().ports[0].lost
        assert down.remedy is not None
        assert f"ip link set dev {stage.bad.name} up" in down.remedy
        unfit = [each.what for each in found.complaints if each.kind == "port-unfit"]
        assert any("leaves checksums unfinished" in each for each in unfit)


def told(stage: Stage, kind: str) -> Complaint:
    """Wait until the doctor has a complaint of a kind, and return the only one."""
    names = [stage.scene.near.name, stage.bad.name]
    found: list[Complaint] = []

    def is_there() -> bool:
        complaints = monitor.examine(stage.scene.netns, names).complaints
        found[:] = [each for each in complaints if each.kind == kind]
        return bool(found)

    wait_until(is_there, lambda: f"no {kind}")
    (complaint,) = found
    return complaint


def test_the_doctor_says_to_which_ports_without_interface_a_program_sends(
    place: str, installed: None
) -> None:
    with staged(place, "native") as stage:
        _absent(stage)
        stage.add(stage.scene.near)
        spec = source("ported").programs["to_port"]
        with xdpkit.attach(stage.scene.near.name, spec, netns=place):
            met = stage.scene.send(FRAMES, 64)
            aborted = told(stage, "aborted")
        assert aborted.packets == met
        assert aborted.cause is not None
        assert aborted.cause.startswith("xdpkit_redirect_to_port() (xdpkit.h:")
        port = stage.report().ports[0]
        assert (
            f"{met} packets to port 0 ({port.name}) of lan, whose interface is gone"
            in aborted.evidence
        )
        assert aborted.remedy is not None
        assert aborted.remedy.endswith("xdpkit ports watch lan")


def test_the_doctor_tells_of_a_broadcast_that_failed_once_and_why(
    place: str, installed: None
) -> None:
    with staged(place, "generic") as stage:
        _down(stage)
        stage.sends_by("to_others")
        stage.scene.send(FRAMES, 64)
        failed = told(stage, "redirect-failed")
        assert failed.cause is not None
        assert f"now port 0 of lan: {stage.bad.name} is down" in failed.cause
        assert "no entry" not in failed.cause
        found = monitor.examine(place).complaints
        assert [each.kind for each in found if each.kind == "broadcast-failed"] == []


def test_the_doctor_knows_an_other_end_that_is_down_from_a_program_that_drops(
    place: str, installed: None
) -> None:
    with staged(place, "native") as stage:
        _peer_down(stage)
        stage.sends_by("to_port")
        stage.scene.send(FRAMES, 64)
        assert told(stage, "transmit-drops").cause == (
            f"{stage.bad.name} has no carrier: the other end is down, or not connected"
        )
    with staged(place, "native") as stage:
        _egress(XdpAction.DROP)(stage)
        stage.sends_by("to_port")
        stage.scene.send(FRAMES, 64)
        cause = told(stage, "transmit-drops").cause
        assert cause is not None
        assert cause.startswith("egress, the egress program of port 0, dropped them")


def test_a_program_that_is_strict_about_its_ports_has_no_complaint_when_all_is_well(
    place: str, installed: None
) -> None:
    with staged(place, "native") as stage:
        near = stage.scene.near.name
        stage.table.add(near, netns=place, prepare=True)
        stage.add(stage.scene.target())
        spec = source("ported").programs["to_others"]
        with xdpkit.attach(near, spec, netns=place, policy="strict"):
            found = monitor.examine(place, [near])
        assert found.unseen == ()
        assert [each.kind for each in found.complaints if each.kind == "findings-changed"] == []
