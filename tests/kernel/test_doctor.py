# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of real hooks, when real packets get lost."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import foreign_link
from tests.kernel.compiled import read
from tests.kernel.killing import only_here, wait_until
from tests.kernel.multiqueue import line_into
from tests.kernel.net import Veth, make_veth, rtnetlink
from tests.kernel.process import COMMAND, POWERLESS, shipped, xdpkit_command
from tests.unit.cli.commands import run
from xdpkit import Hook, monitor
from xdpkit.hook import Mode
from xdpkit.kernel import load
from xdpkit.monitor.doctor import Complaint, Diagnosis, Severity, examine
from xdpkit.syscalls.netns import entered

__all__ = ["only_here"]

pytestmark = pytest.mark.needs("prog-bind-map", "bpf-link-xdp")

SOURCE = (Path(__file__).parent / "c" / "ailing.c").read_text().splitlines()
PASSES = 2

# What other tests do at the same time is counted, too.
_ELSEWHERE = ("errors-elsewhere", "attach-refused", "tracepoints-missing")


def spec(name: str) -> xdpkit.ProgramSpec:
    return read("ailing").programs[name]


def line_of(text: str) -> str:
    """Return the first line of the source that has a text."""
    found = next(at for at, line in enumerate(SOURCE, 1) if text in line)
    return f"ailing.c:{found}"


@dataclass(frozen=True, slots=True)
class Patient:
    """A veth, what sends frames to it, and the doctor."""

    veth: Veth
    hook: Hook
    pin_root: str
    sender: socket.socket

    def send(self, wish: int, count: int = 1, *, length: int = 64) -> None:
        """Send frames that say what the program is to do."""
        frame = (bytes(12) + b"\x88\xb5" + bytes([wish])).ljust(length, b"\0")
        for _ in range(count):
            self.sender.send(frame)

    def examine(self, *interfaces: str) -> Diagnosis:
        return examine(self.veth.netns, interfaces or None, pin_root=self.pin_root)

    def complaints(self) -> list[Complaint]:
        found = self.examine().complaints
        return [each for each in found if each.kind not in _ELSEWHERE]

    def kinds(self) -> list[str]:
        return [each.kind for each in self.complaints()]

    def told(self, kind: str, what: str = "") -> Complaint:
        """Wait until there is a complaint of a kind that begins so, and return it."""
        found: list[Complaint] = []

        def is_there() -> bool:
            found[:] = [
                each
                for each in self.complaints()
                if each.kind == kind and each.what.startswith(what)
            ]
            return bool(found)

        wait_until(is_there, lambda: f"{self.complaints()}")
        (complaint,) = found
        return complaint


@pytest.fixture
def patient(veth: Veth, pin_root: str) -> Iterator[Patient]:
    with entered(veth.peer_netns):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sender:
        sender.bind((veth.peer, 0))
        hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
        yield Patient(veth, hook, pin_root, sender)


@pytest.fixture
def watched(pin_root: str) -> Iterator[None]:
    """The resident programs are installed."""
    shipped("monitor.o")
    monitor.install(pin_root=pin_root)
    yield
    monitor.remove(pin_root=pin_root)


@pytest.mark.usefixtures("watched")
def test_nothing_is_wrong_with_a_program_that_does_what_it_should(patient: Patient) -> None:
    patient.hook.add(spec("firewall")).close()
    patient.hook.counters.enable()
    patient.send(PASSES, 3)
    found = patient.examine()
    assert patient.complaints() == []
    assert (found.is_well, found.unseen) == (True, ())
    (attached,) = found.attached
    assert (attached.program, attached.mode, attached.queues) == ("firewall", "native", None)
    assert attached.needs == ("XDP_ABORTED", "XDP_PASS")


@pytest.mark.usefixtures("watched")
def test_a_number_that_is_no_action_is_found_in_the_source(patient: Patient) -> None:
    patient.hook.add(spec("firewall")).close()
    patient.send(42, 2)
    told = patient.told("invalid-action", "2 packets were dropped: firewall returned 42")
    assert told.severity is Severity.ERROR
    assert told.cause == f"{line_of('exactly(42)')} returns 42"
    # A copy that counts has another id, and the same lines.
    patient.hook.counters.enable(count_bytes=True)
    patient.send(42, 3)
    told = patient.told("invalid-action", "5 packets were dropped: firewall returned 42")
    assert told.cause == f"{line_of('exactly(42)')} returns 42"
    assert any(each.startswith("counters: 3 packets") for each in told.evidence)


@pytest.mark.usefixtures("watched")
def test_a_value_from_the_packet_is_said_to_be_from_there(patient: Patient) -> None:
    patient.hook.add(spec("anything")).close()
    patient.send(200)
    told = patient.told("invalid-action", "1 packet was dropped: anything returned 200")
    assert told.cause is not None
    assert re.search(r"ailing\.c:\d+ may return any value, from the packet", told.cause)


@pytest.mark.usefixtures("watched")
def test_a_corrected_program_is_not_blamed_for_its_forerunner(patient: Patient) -> None:
    patient.hook.add(spec("firewall")).close()
    patient.send(42)
    patient.told("invalid-action", "1 packet was dropped")
    patient.hook.replace(spec("firewall")).close()
    told = patient.told("invalid-action", "1 packet was lost")
    assert told.severity is Severity.NOTE
    assert patient.examine().is_well


def test_counters_alone_tell_what_was_returned(patient: Patient) -> None:
    patient.hook.add(spec("firewall")).close()
    patient.hook.counters.enable()
    patient.send(0, 3)
    told = patient.told("aborted", "3 packets were dropped: firewall returned XDP_ABORTED")
    assert told.cause == f"{line_of('exactly(0)')} returns XDP_ABORTED"
    assert "monitor-not-installed" in patient.kinds()


@pytest.mark.usefixtures("watched")
def test_the_program_of_an_rx_queue_is_told_from_the_others(patient: Patient) -> None:
    patient.hook.queues[1].add(spec("firewall")).close()
    patient.hook.queues[2].add(spec("leaf")).close()
    with line_into(patient.veth) as line:
        line.send(0, 4)
        line.send(1, 2)
    # The frames of a line ask for XDP_ABORTED.
    told = patient.told("aborted", "2 packets were dropped: one of the programs of the RX queues")
    assert told.cause == f"firewall: {line_of('exactly(0)')} returns XDP_ABORTED"
    assert patient.told("no-program", "4 packets of RX queue 0").severity is Severity.NOTE


def other_port(patient: Patient, router: str = "router", ports: str = "ports") -> Veth:
    """Make another veth, and redirect what asks for key 1 to it."""
    other = make_veth(patient.veth.netns)
    with patient.hook.add(spec(router), policy="report") as attached, entered(other.netns):
        attached.maps[ports][1] = other.interface.index
    return other


@pytest.mark.usefixtures("watched")
def test_a_devmap_without_the_entry_is_told_with_the_redirect(patient: Patient) -> None:
    other_port(patient)
    patient.send(3)
    told = patient.told("aborted", "1 packet was dropped: router returned XDP_ABORTED")
    assert told.cause == (
        f"bpf_redirect_map() at {line_of('bpf_redirect_map')} gives XDP_ABORTED where ports has no"
        " entry for the key (now it has: 1)"
    )


@pytest.mark.usefixtures("watched")
def test_a_hashed_devmap_is_looked_at_like_others(patient: Patient) -> None:
    other = other_port(patient, "sparse_router", "sparse_ports")
    patient.send(3)
    patient.send(1)
    told = patient.told("aborted", "1 packet was dropped: sparse_router returned XDP_ABORTED")
    assert told.cause is not None
    assert told.cause.endswith("sparse_ports has no entry for the key (now it has: 1)")
    told = patient.told("redirect-failed", "1 packet was lost: sparse_router redirected to")
    assert told.cause is not None
    assert f"now {other.name} takes no redirected frames" in told.cause
    assert patient.examine().unseen == ()


@pytest.mark.usefixtures("watched")
def test_copies_that_count_are_told_of_with_the_program(patient: Patient) -> None:
    other = other_port(patient)
    patient.send(1)
    patient.told("redirect-failed", "1 packet was lost")
    patient.hook.counters.enable()
    patient.send(1)
    patient.told("redirect-failed", "2 packets were lost")
    patient.hook.counters.enable(count_bytes=True)
    patient.send(1)
    told = patient.told("redirect-failed")
    assert told.what.startswith(f"3 packets were lost: router redirected to {other.name}, and")
    assert re.search(r" by program \d+, \d+, \d+, map \d+, last seen ", told.evidence[0])


@pytest.mark.usefixtures("watched")
def test_a_target_whose_peer_has_no_program_is_told_with_the_remedy(patient: Patient) -> None:
    other = other_port(patient)
    patient.send(1, 2)
    told = patient.told(
        "redirect-failed", f"2 packets were lost: router redirected to {other.name}"
    )
    assert told.cause is not None
    assert f"now {other.name} takes no redirected frames" in told.cause
    assert told.remedy is not None
    assert told.remedy.startswith(f"attach a program to the veth peer of {other.name}")


@pytest.mark.usefixtures("watched")
def test_a_target_that_is_down_or_too_small_is_told_from_its_state(patient: Patient) -> None:
    other, here = other_port(patient), patient.veth.name
    peer = Hook(other.peer, netns=other.netns, pin_root=patient.pin_root)
    peer.add(spec("leaf")).close()
    with rtnetlink(other.netns) as connection:
        connection.link("set", ifname=other.name, mtu=600)
    patient.send(1, length=1000)
    told = patient.told("redirect-failed", "1 packet was lost")
    assert told.cause is not None
    assert told.cause.endswith(f"; now the MTU of {other.name} is 600, that of {here} 1500")
    assert told.remedy is not None
    assert told.remedy.endswith(f"ip link set dev {other.name} mtu 1500")
    with rtnetlink(other.netns) as connection:
        connection.link("set", ifname=other.name, state="down")
    patient.send(1, 2)
    told = patient.told("redirect-failed", "2 packets were lost")
    assert told.cause is not None
    assert f"; now {other.name} is down" in told.cause
    assert told.remedy is not None
    assert told.remedy.endswith(f"ip link set dev {other.name} up")
    # Mended: what helped is not told any more.
    with rtnetlink(other.netns) as connection:
        connection.link("set", ifname=other.name, state="up", mtu=1500)
    found = [each for each in patient.complaints() if each.kind == "redirect-failed"]
    assert [each.remedy for each in found] == [None, None]
    assert all(
        each.cause is not None
        and each.cause.endswith(f"; now nothing is seen to be wrong with {other.name}")
        for each in found
    )


def test_findings_are_compared_with_those_of_the_attach(patient: Patient) -> None:
    peer = Hook(patient.veth.peer, netns=patient.veth.netns, pin_root=patient.pin_root)
    peer.add(spec("leaf")).close()
    patient.hook.add(spec("echo")).close()
    assert "findings-changed" not in patient.kinds()
    peer.delete()
    told = patient.told("findings-changed")
    assert told.severity is Severity.ERROR
    assert f"it needs action XDP_TX at {line_of('return XDP_TX')}" in told.what
    assert told.remedy is not None
    assert told.remedy.startswith(f"attach a program to the veth peer of {patient.veth.name}")


def test_transmission_to_nobody_is_told_from_counters_and_else_from_the_driver(
    patient: Patient,
) -> None:
    patient.hook.add(spec("echo"), force=True).close()
    patient.send(PASSES, 2)
    assert patient.told("driver-errors", "2 packets were lost").severity is Severity.WARNING
    assert "forced" in patient.kinds()
    patient.hook.counters.enable()
    patient.send(PASSES, 3)
    told = patient.told("tx-lost", "3 packets were lost: echo returned XDP_TX")
    assert f"{line_of('return XDP_TX')} returns XDP_TX" in told.evidence
    assert "driver-errors" not in patient.kinds()


def test_what_could_not_be_sent_back_is_told_once(patient: Patient) -> None:
    shipped("monitor.o")
    monitor.install(transmit=True, pin_root=patient.pin_root)
    patient.hook.add(spec("echo"), force=True).close()
    patient.hook.counters.enable()
    patient.send(PASSES, 2)
    told = patient.told("transmit-drops", "2 packets were lost: echo returned XDP_TX, and")
    assert told.severity is Severity.ERROR
    assert told.remedy is not None
    assert told.remedy.startswith(f"attach a program to the veth peer of {patient.veth.name}")
    assert patient.kinds() == ["transmit-drops", "forced"]
    monitor.remove(pin_root=patient.pin_root)


def test_what_looks_strange_does_not_hide_the_rest(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(*_: object, **__: object) -> None:
        raise ValueError("bytes where a number should be")

    patient.hook.add(spec("firewall")).close()
    patient.hook.counters.enable()
    patient.send(0)
    patient.told("aborted")
    monkeypatch.setattr("xdpkit.monitor.complaints.gathering._web", strange)
    told = patient.told("aborted", "1 packet was dropped: firewall returned XDP_ABORTED")
    assert told.cause is None
    assert patient.examine().unseen == (
        f"the instructions of the programs on {patient.veth.name} could not be looked at:"
        " ValueError: bytes where a number should be",
    )
    monkeypatch.setattr("xdpkit.monitor.snapshot.take", strange)
    assert patient.kinds() == ["monitor-not-read"]
    assert len(patient.examine().attached) == 1


def test_an_emptied_slot_is_known_from_the_object_file(patient: Patient) -> None:
    with patient.hook.add(spec("pipeline")) as attached:
        assert "emptied-array" not in patient.kinds()
        del attached.maps["stages"][1]
    told = patient.told("emptied-array")
    assert told.severity is Severity.ERROR
    assert told.cause == (
        f"the tail call at {line_of('bpf_tail_call')} goes nowhere, and pipeline goes on behind it;"
        " its object file fills that slot when it is loaded"
    )


def test_generic_mode_is_not_well_where_native_mode_would_do(patient: Patient) -> None:
    patient.hook.add(spec("firewall"), mode=Mode.GENERIC).close()
    told = patient.told("generic-mode")
    assert told.severity is Severity.WARNING
    assert told.remedy is not None
    assert "--mode native" in told.remedy
    patient.hook.delete()
    # The peer has no program: natively, XDP_TX would be in vain.
    patient.hook.add(spec("echo"), mode=Mode.GENERIC).close()
    assert "generic-mode" not in patient.kinds()


def test_what_is_off_and_whose_programs_there_are_is_mentioned(patient: Patient) -> None:
    with foreign_link(patient.veth):
        assert patient.kinds() == ["foreign-program", "monitor-not-installed"]
    patient.hook.add(spec("leaf")).close()
    patient.hook.counters.enable()
    patient.hook.counters.disable()
    assert patient.kinds() == ["counters-off", "monitor-not-installed"]
    assert patient.examine().is_well


def test_a_change_that_waits_is_mentioned(patient: Patient) -> None:
    patient.hook.add(spec("leaf"), revert_after=3600).close()
    assert "revert-pending" in patient.kinds()
    patient.hook.confirm()
    assert "revert-pending" not in patient.kinds()


def test_pins_of_an_interface_that_is_gone_are_to_be_cleaned_up(patient: Patient) -> None:
    other = make_veth(patient.veth.netns)
    Hook(other.name, netns=other.netns, pin_root=patient.pin_root).add(spec("leaf")).close()
    with rtnetlink(other.netns) as connection:
        connection.link("del", ifname=other.name)
    told = patient.told("stale-state")
    assert told.severity is Severity.NOTE
    assert told.remedy == f"xdpkit clean --pin-root {patient.pin_root}"


@pytest.mark.usefixtures("only_here")
def test_a_reader_that_was_killed_is_noticed_once(patient: Patient) -> None:
    patient.hook.add(spec("leaf")).close()
    name, here = patient.veth.name, ("-n", patient.veth.netns, "--pin-root", patient.pin_root)
    with subprocess.Popen(
        [*COMMAND, "capture", *here, name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as reader:
        assert reader.stderr is not None
        assert any(line.startswith(b"xdpkit: capturing on ") for line in reader.stderr)
        assert "killed-reader" not in patient.kinds()
        reader.kill()
    told = patient.told("killed-reader")
    assert told.severity is Severity.WARNING
    assert told.what == f"the programs on {name} report frames to nobody"
    assert sorted(patient.kinds()) == ["killed-reader", "monitor-not-installed"]
    assert run("clean", "--pin-root", patient.pin_root).status == 0
    assert patient.kinds() == ["monitor-not-installed"]


def test_where_pins_are_hidden_it_says_how_to_see_them(veth: Veth) -> None:
    if shutil.which("ip") is None:
        pytest.skip("no ip: apt-get install iproute2")
    done = xdpkit_command("doctor", "-j", by=("ip", "netns", "exec", veth.netns))
    (told,) = done.json["complaints"]
    assert told["kind"] == "monitor-not-read"
    assert "is hidden here, as by ip netns exec" in told["cause"]
    assert "xdpkit -n NAME" in told["remedy"]
    assert "what killed commands may have left" not in done.json["looked_at"]
    (unseen,) = done.json["unseen"]
    assert unseen.startswith("what goes wrong cannot be read: /sys/fs/bpf")


def test_a_program_of_which_nobody_kept_anything_is_only_called_by_its_name(
    patient: Patient,
) -> None:
    with load(spec("leaf")) as program, foreign_link(patient.veth, name="other"):
        assert program.id
        found = patient.examine(patient.veth.name, patient.veth.peer)
    (attached,) = found.attached
    assert (attached.program, attached.owner, attached.needs) == ("other", "unknown", ())
    assert found.idle == (patient.veth.peer,)


def test_the_command_exits_with_8_when_something_is_wrong(patient: Patient) -> None:
    here = ["-n", patient.veth.netns, "doctor", "--pin-root", patient.pin_root]
    patient.hook.add(spec("firewall")).close()
    done = run(*here, "-j")
    assert (done.status, done.json["well"]) == (0, True)
    patient.hook.counters.enable()
    patient.send(42)
    patient.told("invalid-action")
    done = run(*here, patient.veth.name)
    assert done.status == 8
    # The counters do not know which number it was, but the program returns no other.
    assert "1 packet was dropped: firewall returned 42, which is no action" in done.output
    assert f"  cause     {line_of('exactly(42)')} returns 42" in done.output
    assert run(*here, "absent").status == 2


def test_without_privilege_it_says_what_it_could_not_see(patient: Patient) -> None:
    patient.hook.add(spec("firewall")).close()
    entering = ("nsenter", f"--net=/run/netns/{patient.veth.netns}", *POWERLESS)
    done = xdpkit_command("doctor", "--pin-root", patient.pin_root, "-j", by=entering)
    assert [each["program_id"] for each in done.json["attached"]]
    told = " ".join(done.json["unseen"])
    assert "names, maps and records of programs cannot be looked up" in told
    assert "the instructions of the programs on" in told
    causes = [each for each in done.json["unseen"] if "this process lacks CAP_SYS_ADMIN" in each]
    assert len(causes) == 1
    assert "foreign-program" not in [each["kind"] for each in done.json["complaints"]]
    refused = xdpkit_command("doctor", "-n", patient.veth.netns, by=POWERLESS)
    assert refused.status == 7
