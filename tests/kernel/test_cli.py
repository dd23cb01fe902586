# SPDX-License-Identifier: Apache-2.0
"""The command, from a shell's point of view."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from tests.kernel import compiled
from tests.kernel.attaching import attach_by_netlink, foreign_link, on_hook
from tests.kernel.net import Veth
from tests.kernel.process import COMMAND, POWERLESS, Done, shipped, xdpkit_command
from tests.kernel.transcript import messages_of
from xdpkit.cli.pcap import Packet, PcapWriter, read_packets
from xdpkit.compiler import find_compilers
from xdpkit.hook import Mode, Owner

BLOCKED, OPEN = 7777, 8888


def frame(port: int, *, size: int = 60) -> bytes:
    """An Ethernet frame with a UDP datagram to a port."""
    udp = struct.pack("!HHHH", 1234, port, size - 34, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, bytes(4), bytes(4))
    return (bytes(12) + b"\x08\x00" + ip + udp).ljust(size, b"\0")


def write_pcap(path: Path, *frames: bytes) -> Path:
    with open(path, "wb") as stream:
        writer = PcapWriter(stream)
        for number, data in enumerate(frames):
            writer.write(Packet(data, number * 10**9, len(data)))
    return path


def read_pcap(path: Path) -> list[Packet]:
    with open(path, "rb") as stream:
        return list(read_packets(stream))


# attach, status, detach


def test_a_program_is_attached_shown_and_detached(veth: Veth, pin_root: str) -> None:
    here = ["-n", veth.netns, "--pin-root", pin_root]

    attached = xdpkit_command("attach", *here, veth.name, shipped("demo.o"))
    assert (attached.status, messages_of(attached)) == (0, "")
    found = on_hook(veth, pin_root)
    assert found is not None
    assert attached.output == (
        f"attached firewall to {veth.name} in native mode\n"
        f"  program {found.program.id}, tag {found.program.tag}, link {found.link_id}\n"
        f"  pinned at {found.pinned}\n"
    )

    overview = xdpkit_command("status", *here)
    assert (overview.status, overview.messages) == (0, "")
    title, row = overview.output.splitlines()
    assert title.split() == ["interface", "mode", "id", "program", "tag", "by"]
    assert row.split() == [
        veth.name,
        "native",
        str(found.program.id),
        "firewall",
        found.program.tag,
        "xdpkit,",
        "link",
        str(found.link_id),
    ]

    details = xdpkit_command("status", *here, veth.name)
    assert f"program  firewall id {found.program.id}\n" in details.output
    assert f"pinned   {found.pinned}\n" in details.output
    assert "maps     hits (" in details.output

    detached = xdpkit_command("detach", *here, veth.name)
    assert (detached.status, detached.messages) == (0, "")
    assert detached.output == (
        f"detached firewall from {veth.name}\n  program {found.program.id}, link {found.link_id}\n"
    )
    assert on_hook(veth, pin_root) is None
    assert os.listdir(Path(pin_root) / "xdpkit") == []

    nothing = xdpkit_command("status", *here)
    assert (nothing.status, nothing.output) == (0, "")
    assert nothing.messages == (
        f"xdpkit: no interface in network namespace {veth.netns} has a program\n"
    )
    assert xdpkit_command("status", *here, veth.name).output == f"{veth.name}: no program\n"


def test_json_says_the_same_with_numbers_as_numbers(veth: Veth, pin_root: str) -> None:
    here = ["-j", "-n", veth.netns, "--pin-root", pin_root]

    attached = xdpkit_command("attach", *here, veth.name, shipped("demo.o"), "--mode", "skb").json
    found = on_hook(veth, pin_root)
    assert found is not None
    assert attached["schema"] == 1
    assert attached["ifindex"] == veth.interface.index
    (program,) = attached["attached"]
    assert program["mode"] == "generic"
    assert program["prog"]["id"] == found.program.id
    assert program["link"] == {"id": found.link_id}
    assert {used["name"] for used in program["prog"]["maps"]} == {"hits", "queues", "demo.rodata"}

    (hook,) = xdpkit_command("status", *here).json["interfaces"]
    negotiation = attached.pop("negotiation")
    assert (negotiation["mode"], negotiation["allowed"]) == ("generic", True)
    assert attached.pop("overridden") is False
    assert (attached.pop("mode"), attached.pop("revert_after")) == ("generic", None)
    assert all("mount namespace" in note for note in attached.pop("notes"))
    assert (attached.pop("prog"), attached.pop("queues")) == (program["prog"], None)
    assert attached.pop("port") is None
    assert {"schema": 1, **hook} == attached

    detached = xdpkit_command("detach", *here, veth.name).json
    assert detached["interface"] == veth.name
    assert detached["prog"] == program["prog"]
    assert detached["link"] == program["link"]


def test_the_namespace_can_be_named_before_the_command(veth: Veth, pin_root: str) -> None:
    done = xdpkit_command("-n", veth.netns, "-j", "status", veth.name, "--pin-root", pin_root)
    assert done.json["interfaces"][0]["netns"] == veth.netns


def test_nothing_is_attached_over_another_program(veth: Veth, pin_root: str) -> None:
    here = ["-n", veth.netns, "--pin-root", pin_root]
    xdpkit_command("attach", *here, veth.name, shipped("demo.o"))
    before = on_hook(veth, pin_root)
    assert before is not None

    refused = xdpkit_command("attach", *here, veth.name, shipped("pass.o"))
    assert (refused.status, refused.output) == (5, "")
    assert f"already has program {before.program.id}" in refused.messages
    error = xdpkit_command("attach", "-j", *here, veth.name, shipped("pass.o"))
    assert (error.status, error.messages) == (5, "")
    assert error.json["error"]["kind"] == "HookBusy"
    assert on_hook(veth, pin_root) == before

    assert xdpkit_command("detach", *here, veth.name).status == 0


def test_only_the_expected_program_is_detached(veth: Veth, pin_root: str) -> None:
    here = ["-n", veth.netns, "--pin-root", pin_root]
    xdpkit_command("attach", *here, veth.name, shipped("demo.o"))
    found = on_hook(veth, pin_root)
    assert found is not None

    wrong = xdpkit_command("detach", *here, veth.name, "--expect", found.program.id + 1)
    assert wrong.status == 5
    assert on_hook(veth, pin_root) == found

    right = xdpkit_command("detach", *here, veth.name, "--expect", found.program.id)
    assert right.status == 0
    assert on_hook(veth, pin_root) is None


def test_programs_of_others_are_shown_and_left_alone(veth: Veth, pin_root: str) -> None:
    here = ["-n", veth.netns, "--pin-root", pin_root]
    with foreign_link(veth) as link_id:
        assert f"link {link_id}" in xdpkit_command("status", *here).output
        assert xdpkit_command("detach", *here, veth.name).status == 5
        found = on_hook(veth, pin_root)
        assert found is not None
        assert found.owner is Owner.UNKNOWN
    attach_by_netlink(veth)
    assert xdpkit_command("status", *here).output.splitlines()[1].endswith("  netlink")


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["detach", "{iface}"], "nothing is attached to it"),
        (["status", "no-such-one"], "has no such interface"),
        (["attach", "no-such-one", "{demo}"], "has no such interface"),
        (["attach", "{iface}", "{demo}", "--program", "fierwall"], "has no program 'fierwall'"),
        (["attach", "{iface}", "{demo}", "--set", "blocked_port=65536"], "0 … 65535"),
        (["attach", "{iface}", "no-such-file.o"], "No such file or directory"),
        (["status", "-n", "no-such-one"], "does not exist"),
    ],
)
def test_mistakes_of_the_caller_change_nothing(
    veth: Veth, pin_root: str, args: list[str], cause: str
) -> None:
    words = {"iface": veth.name, "demo": str(shipped("demo.o"))}
    command, *rest = (arg.format_map(words) for arg in args)
    done = xdpkit_command(command, "-n", veth.netns, "--pin-root", pin_root, *rest)
    assert (done.status, done.output) == (2, "")
    assert cause in done.messages
    assert on_hook(veth, pin_root) is None


def test_a_folder_that_is_no_bpffs_holds_no_pins(veth: Veth, tmp_path: Path) -> None:
    done = xdpkit_command(
        "attach", "-n", veth.netns, "--pin-root", tmp_path, veth.name, shipped("demo.o")
    )
    assert done.status == 3
    assert f"Remedy: mount -t bpf bpf {tmp_path}" in done.messages


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="apt-get install util-linux")
def test_missing_privilege_has_a_status_of_its_own(pin_root: str) -> None:
    done = xdpkit_command(
        "run", shipped("demo.o"), "--input", "-", "--pin-root", pin_root, by=POWERLESS
    )
    assert (done.status, done.output) == (7, "")
    assert "CAP_BPF" in done.messages


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="apt-get install util-linux")
def test_without_perfmon_the_verifier_is_not_taken_at_its_word(
    pin_root: str, tmp_path: Path
) -> None:
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN))
    done = xdpkit_command(
        *("run", shipped("demo.o"), "--input", capture, "--pin-root", pin_root),
        by=("setpriv", "--bounding-set=-all,+bpf,+net_admin", "--"),
    )
    assert (done.status, done.output) == (7, "")
    assert "lacks CAP_PERFMON" in done.messages
    assert "prohibited" in done.messages


def test_an_attach_whose_output_fails_is_done_all_the_same(veth: Veth, pin_root: str) -> None:
    arguments = ["attach", "-n", veth.netns, "--pin-root", pin_root, veth.name, shipped("demo.o")]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    messages = messages_of(Done(done.returncode, "", done.stderr.decode()))
    assert messages == "xdpkit: write to standard output: No space left on device\n"
    assert on_hook(veth, pin_root) is not None


def test_status_without_privilege_says_what_it_could_not_see(veth: Veth, pin_root: str) -> None:
    if shutil.which("setpriv") is None or shutil.which("nsenter") is None:
        pytest.skip("apt-get install util-linux")
    with foreign_link(veth):
        into = ("nsenter", f"--net=/run/netns/{veth.netns}")
        done = xdpkit_command("status", "--pin-root", pin_root, by=[*into, *POWERLESS])
    assert done.status == 0
    assert done.output.splitlines()[1].split()[:2] == [veth.name, "native"]
    assert "CAP_SYS_ADMIN" in done.messages


# run


def test_packets_are_counted_by_action(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", *[frame(BLOCKED)] * 3, frame(OPEN), bytes(13))
    arguments = ["run", shipped("demo.o"), "--input", capture, "--set", f"blocked_port={BLOCKED}"]

    text = xdpkit_command(*arguments)
    assert text.status == 0
    lines = text.output.splitlines()
    assert lines[0] == f"firewall over 4 packets of {capture}"
    assert [line.split()[:3] for line in lines[2:]] == [
        ["action", "packets", "%"],
        ["XDP_DROP", "3", "75.0"],
        ["XDP_PASS", "1", "25.0"],
    ]
    assert text.messages == "xdpkit: left out 1 packet shorter than an Ethernet header\n"

    document = xdpkit_command(*arguments, "-j").json
    assert document["packets"] == 4
    assert document["left_out"] == {"too_short": 1, "too_long": 0}
    drop, passed = document["actions"]
    assert (drop["action"], drop["value"], drop["packets"], drop["percent"]) == (
        "XDP_DROP",
        1,
        3,
        75.0,
    )
    assert passed["ns_per_packet"] >= 0


def test_what_was_not_dropped_is_written_as_it_came_out(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN), frame(BLOCKED), frame(OPEN, size=99))
    arguments = ["--set", f"blocked_port={BLOCKED}", "--output", tmp_path / "out.pcap"]
    done = xdpkit_command("run", shipped("demo.o"), "--input", capture, *arguments)
    assert done.messages == f"xdpkit: wrote 2 packets to {tmp_path / 'out.pcap'}\n"
    sent = read_pcap(capture)
    assert read_pcap(tmp_path / "out.pcap") == [sent[0], sent[2]]


def test_packets_can_come_by_a_pipe(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN))
    done = xdpkit_command(
        "run", "-j", shipped("demo.o"), "--input", "-", stdin=capture.read_bytes()
    )
    assert done.json["packets"] == 1


def test_a_packet_that_needs_frags_support_is_left_out_without_it(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN, size=9000))
    without = xdpkit_command("run", "-j", shipped("demo.o"), "--input", capture).json
    assert (without["packets"], without["left_out"]["too_long"]) == (0, 1)
    support = xdpkit_command("run", "-j", shipped("pass.o"), "--input", capture).json
    assert (support["packets"], support["left_out"]["too_long"]) == (1, 0)


def test_a_run_that_fails_leaves_the_output_as_it_was(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN), frame(OPEN))
    capture.write_bytes(capture.read_bytes()[:-1])
    output = tmp_path / "out.pcap"
    output.write_text("precious")
    done = xdpkit_command("run", shipped("demo.o"), "--input", capture, "--output", output)
    assert (done.status, done.output) == (6, "")
    assert "the file ends in the middle of a packet" in done.messages
    assert output.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["in.pcap", "out.pcap"]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN))
    done = xdpkit_command("run", shipped("demo.o"), "--input", capture, "--output", "/dev/null")
    assert done.status == 0
    assert Path("/dev/null").is_char_device()


def test_packets_go_into_a_pipe_but_not_among_the_table(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN))
    arguments = ["run", shipped("demo.o"), "--input", capture, "--output"]
    refused = xdpkit_command(*arguments, "-")
    assert (refused.status, refused.output) == (2, "")
    assert "standard output has the table" in refused.messages
    piped = subprocess.run(
        [*COMMAND, *map(str, arguments), "/dev/stdout"], capture_output=True, check=False
    )
    assert piped.returncode == 0
    assert piped.stdout.startswith(capture.read_bytes())


def test_a_capture_of_something_else_than_ethernet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    with open(path, "wb") as stream:
        PcapWriter(stream, linktype=101).write(Packet(bytes(40), 0, 40))
    done = xdpkit_command("run", shipped("demo.o"), "--input", path)
    assert done.status == 2
    assert "not of Ethernet frames (link type 101)" in done.messages


def test_ctrl_c_ends_a_run_with_130_and_leaves_no_output(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "in.pcap", *[frame(OPEN)] * 10_000)
    process = subprocess.Popen(
        [*COMMAND, "run", shipped("demo.o"), "--input", "-", "--output", tmp_path / "out.pcap"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        # More than a pipe holds: when it is written, most of it has been read.
        process.stdin.write(capture.read_bytes())
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    assert process.returncode == 128 + signal.SIGINT
    assert os.listdir(tmp_path) == ["in.pcap"]


def test_a_refusal_of_the_verifier_shows_the_telling_lines_and_keeps_the_log(
    tmp_path: Path,
) -> None:
    path = compiled.read("refused").path
    log = tmp_path / "verifier.log"
    capture = write_pcap(tmp_path / "in.pcap", frame(OPEN))
    name = next(iter(compiled.read("refused").programs))
    arguments = ["run", path, "--program", name, "--input", capture]
    done = xdpkit_command(*arguments, "--verifier-log", log)
    assert (done.status, done.output) == (4, "")
    assert f"xdpkit: the verifier's log is in {log}\n" in done.messages
    assert "refused.c:" in done.messages
    assert len(done.messages.splitlines()) < len(log.read_text().splitlines()) + 20
    assert "processed" in log.read_text()
    error = xdpkit_command("-j", *arguments).json["error"]
    assert (error["kind"], error["errno"]) == ("VerifierError", "EACCES")


# build


@pytest.mark.skipif(not find_compilers(), reason="no BPF compiler: apt-get install clang")
def test_a_source_becomes_an_object_that_attaches(
    veth: Veth, pin_root: str, tmp_path: Path
) -> None:
    source = tmp_path / "drop.c"
    source.write_text(
        "#include <xdpkit.h>\n"
        'SEC("xdp") int drop_all(struct xdp_md *ctx) { return VERDICT; }\n'
        'char _license[] SEC("license") = "GPL";\n'
    )
    compiler = find_compilers()[0].name
    built = xdpkit_command("build", source, "-D", "VERDICT=XDP_DROP")
    assert (built.status, built.messages) == (0, "")
    output = tmp_path / "drop.o"
    assert built.output == f"built {output} with {compiler}: 1 program, 0 maps\n"

    here = ["-n", veth.netns, "--pin-root", pin_root]
    assert xdpkit_command("attach", *here, veth.name, output, "--mode", "generic").status == 0
    found = on_hook(veth, pin_root)
    assert found is not None
    assert (found.program.name, found.mode) == ("drop_all", Mode.GENERIC)
    assert xdpkit_command("detach", *here, veth.name).status == 0

    named = xdpkit_command("build", "-j", source, "-o", tmp_path / "x.o", "-D", "VERDICT=1").json
    assert named["output"] == str(tmp_path / "x.o")
    assert named["programs"] == ["drop_all"]

    broken = xdpkit_command("build", source)
    assert (broken.status, broken.output) == (3, "")
    assert "drop.c:2:" in broken.messages
    assert "VERDICT" in xdpkit_command("build", "-j", source).json["error"]["log"]
