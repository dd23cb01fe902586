# SPDX-License-Identifier: Apache-2.0
"""``xdpkit events``."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import PcapNgReader

from tests.kernel.fates import SIZE, attached, frame, redirecting, returning
from tests.kernel.killing import DEADLINE, wait_until
from tests.kernel.net import Veth
from tests.kernel.process import COMMAND, POWERLESS, xdpkit_command
from tests.kernel.transcript import messages_of
from tests.kernel.troubles import ABORTED, added, one, send
from xdpkit.uapi.bpf import XdpAction

__all__ = ["one"]

pytestmark = pytest.mark.needs("ringbuf")

Golden = Callable[[str, str], None]

NO_SUCH_INTERFACE = 9999


class Watching:
    """The command, running: it has said what it watches.

    Attributes:
        process: the process. introduction: what it said first.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stderr is not None
        self.introduction = ""
        while "xdpkit: watching" not in self.introduction:
            line = process.stderr.readline()
            assert line, self.introduction
            self.introduction += line.decode()

    def end(self) -> tuple[str, str]:
        """Wait until it ends by itself; return its output and all its messages."""
        output, messages = self.process.communicate(timeout=DEADLINE)
        return (output or b"").decode(), self.introduction + messages.decode()


@contextmanager
def watching(*args: object, stdout: Any = subprocess.PIPE) -> Iterator[Watching]:
    command = [*COMMAND, "events", *map(str, args)]
    # Without a buffer, so that nothing is read that is not looked at.
    with subprocess.Popen(command, bufsize=0, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield Watching(process)
        finally:
            process.kill()


def plain(text: str, veth: Veth) -> str:
    """Return a text with what differs from run to run replaced."""
    for found, name in ((veth.name, "v0"), (veth.netns, "NETNS")):
        text = text.replace(found, name)
    text = re.sub(r"^\d\d:\d\d:\d\d\.\d{6}", "TIME", text, flags=re.MULTILINE)
    text = re.sub(r"^xdpkit: \S+ is in a mount namespace of its own: .*\n", "", text, flags=re.M)
    return re.sub(r"(?<=\w \()\d+(?=\))", "ID", text)


def lines(text: str) -> list[dict[str, Any]]:
    """Return documents of JSON, one in each line."""
    return [json.loads(line) for line in text.splitlines()]


def test_what_goes_wrong_is_shown_in_lines(one: Veth, golden: Golden) -> None:
    with watching("-n", one.netns, "--count", 3) as found:
        for code in (ABORTED, returning(42), redirecting(NO_SUCH_INTERFACE)):
            with attached(code, one.name, one.netns):
                send(one)
        output, messages = found.end()
    assert found.process.returncode == 0
    golden("events.txt", plain(f"{output}{messages}", one))


def test_a_tapped_programs_queue_and_length_are_shown(
    one: Veth, pin_root: str, golden: Golden
) -> None:
    options = ("-n", one.netns, "--pin-root", pin_root, "--count", 1)
    with added(one, pin_root, ABORTED, "firewall"), watching(*options, one.name) as found:
        send(one)
        output, messages = found.end()
    golden("events-tapped.txt", plain(f"{output}{messages}", one))


def test_in_json_each_line_is_a_document_and_the_last_has_the_sums(
    one: Veth, pin_root: str
) -> None:
    options = ("-n", one.netns, "--pin-root", pin_root, "-j", "--rate", 3, "--duration", "300ms")
    with (
        added(one, pin_root, ABORTED, "firewall") as number,
        watching(*options, one.name, "--snaplen", 14) as found,
    ):
        send(one, 50)
        output, _ = found.end()
    *documents, total = lines(output)
    events = [each for each in documents if each["type"] == "event"]
    suppressed = sum(each["suppressed"] for each in documents if each["type"] == "suppressed")
    assert all(each["schema"] == 1 for each in (*documents, total))
    assert total["type"] == "total"
    assert total["seen"] == 50
    assert total["shown"] == len(events)
    assert total["shown"] + total["suppressed"] + total["lost"] == total["seen"]
    assert suppressed == total["suppressed"] > 0
    first = events[0]
    assert first["interface"] == one.name
    assert (first["program"], first["program_id"]) == ("firewall", number)
    assert (first["action"], first["returned"], first["reason"]) == ("aborted", 0, "aborted")
    assert (first["queue"], first["length"], first["data"]) == (0, SIZE, frame()[:14].hex())


def test_how_many_are_suppressed_is_said(one: Veth) -> None:
    options = ("-n", one.netns, "--rate", 1, "--duration", "300ms")
    with attached(ABORTED, one.name, one.netns), watching(*options) as found:
        send(one, 20)
        _, messages = found.end()
    assert re.search(r"^xdpkit: \d+ events suppressed: more than --rate allows$", messages, re.M)
    total = re.search(r"^xdpkit: (\d+) events? shown, (\d+) suppressed, 0 lost$", messages, re.M)
    assert total is not None
    assert int(total[1]) + int(total[2]) == 20


def test_packets_are_written_into_a_capture_that_only_the_owner_reads(
    one: Veth, pin_root: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.pcapng"
    path.write_text("something else")
    path.chmod(0o644)
    options = ("-n", one.netns, "--pin-root", pin_root, "--pcap", path, "--count", 2)
    with added(one, pin_root, returning(42), "firewall"), watching(*options, one.name) as found:
        send(one, 2)
        found.end()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with PcapNgReader(str(path)) as capture:
        packets = list(capture)
    assert [bytes(packet) for packet in packets] == [frame()[:64]] * 2
    assert {packet.wirelen for packet in packets} == {SIZE}
    assert b"invalid" in (packets[0].comment or b"")


def test_a_capture_can_go_to_standard_output(one: Veth, tmp_path: Path) -> None:
    path = tmp_path / "output"
    options = ("-n", one.netns, "--pcap", "-", "--count", 1)
    with (
        attached(ABORTED, one.name, one.netns),
        path.open("wb") as file,
        watching(*options, stdout=file) as found,
    ):
        send(one)
        found.end()
    with PcapNgReader(str(path)) as capture:
        (packet,) = capture
    # Of nothing at all, scapy makes a frame, if it knows of Ethernet.
    assert packet.original == b""
    assert b"aborted" in (packet.comment or b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_waits_for_who_reads_the_capture(
    one: Veth, pin_root: str, tmp_path: Path, number: signal.Signals
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    options = ("-n", one.netns, "--pin-root", pin_root, one.name, "--pcap", str(pipe))
    with added(one, pin_root, ABORTED, "firewall"):
        before = one.interface.xdp
        with subprocess.Popen(
            [*COMMAND, "events", *options],
            stderr=subprocess.PIPE,
            # Where tests run in the background, it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as running:
            try:
                wait_until(lambda: _waits_for_a_reader(running.pid))
                assert one.interface.xdp == before
                running.send_signal(number)
                _, messages = running.communicate(timeout=DEADLINE)
            finally:
                running.kill()
        assert running.returncode in (128 + number, -number)
        assert b"watching" not in messages
        assert one.interface.xdp == before


def _waits_for_a_reader(pid: int) -> bool:
    """Whether a process waits in wait_for_partner() of fs/pipe.c."""
    return "wait_for_partner" in Path(f"/proc/{pid}/wchan").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(one: Veth, pin_root: str, number: signal.Signals) -> None:
    with added(one, pin_root, ABORTED, "firewall"):
        before = one.interface.xdp
        with watching("-n", one.netns, "--pin-root", pin_root, one.name) as found:
            assert one.interface.xdp != before
            found.process.send_signal(number)
            _, messages = found.end()
        assert found.process.returncode == 0
        assert messages.endswith("xdpkit: 0 events shown, 0 suppressed, 0 lost\n")


def test_it_ends_when_nobody_reads_any_more(one: Veth) -> None:
    reading, writing = os.pipe()
    with attached(ABORTED, one.name, one.netns), watching("-n", one.netns, stdout=writing) as found:
        os.close(writing)
        os.close(reading)
        send(one, 3)
        _, messages = found.end()
    assert found.process.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in messages


def test_it_says_which_programs_are_not_tapped(one: Veth, pin_root: str) -> None:
    options = ("-n", one.netns, "--pin-root", pin_root, one.name, "--duration", "1ms")
    with attached(returning(XdpAction.PASS), one.name, one.netns):
        done = xdpkit_command("events", *options)
    assert "What trial (id" in messages_of(done)
    assert "is not reported: " in messages_of(done)


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("--action", "sneeze"), 2, "'sneeze' is not one of 'aborted', 'drop'"),
        (("--rate", "0"), 2, "0 is not in the range"),
        (("--snaplen", "4097"), 2, "4097 is not in the range"),
        (("--program", "9" * 5000), 2, "a number of 5,000 digits, and an id has 10 at most"),
        (("nosuch0",), 2, "has no such interface"),
        (("--pcap", "/nosuch/folder/file"), 2, "No such file or directory"),
    ],
)
def test_what_makes_no_sense_is_refused(args: Sequence[str], status: int, says: str) -> None:
    done = xdpkit_command("events", *args)
    assert done.status == status
    assert says in done.messages
    assert done.output == ""


def test_without_privilege_it_says_what_is_missing() -> None:
    done = xdpkit_command("events", by=POWERLESS)
    assert done.status == 7
    assert "CAP_" in done.messages
