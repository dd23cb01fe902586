# SPDX-License-Identifier: Apache-2.0
"""The demo, from its beginning to nothing being left of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.kernel.process import COMMAND, POWERLESS, shipped, xdpkit_command
from tests.kernel.transcript import messages_of

Golden = Callable[[str, str], None]

PINS = Path("/sys/fs/bpf/xdpkit")

# What differs from run to run, and from compiler to compiler.
_VARIABLE = (
    (r"xdpkit-demo-\d+", "xdpkit-demo-PID"),
    (r"^\$ cd .*$", "$ cd FOLDER"),
    (r"^(  firewall  xdp) +\d+", r"\1  INSNS"),
    (r"^(fw0 +native(?: +(?:1|others))?) +\d{2,}", r"\1  ID"),
    (r"^(firewall) +\d+ +(?=\d)", r"\1  ID  "),
    (r"\bprogram \d+", "program ID"),
    (r"\blink \d+", "link ID"),
    (r"\blink detach id \d+", "link detach id ID"),
    (r"--expect \d+ \(expected=\d+\)", "--expect ID (expected=ID)"),
    (r"\b[0-9a-f]{16}\b", "TAG"),
    (r"/\d+-\d+/link", "/HOOK/link"),
    (r"^\[{'passed'.*$", "[…]"),
    (r"^\[\d+, \d+, \d+, \d+\]$", "[N, N, N, N]"),
    (r"\(id \d+\)", "(id ID)"),
    (r"for \d+ m?s$", "for TIME"),
    (r"^\S+  fw0  queue \d  faulty \(\d+\)", "TIME  fw0  queue N  faulty (ID)"),
    (r"invalid  \d+ bytes", "invalid  N bytes"),
    (r"\(xdp_exception[^)]*\)", "(TRACEPOINTS)"),
    (r"/\S+/faulty.o$", "FOLDER/faulty.o"),
    (r" {2,}", "  "),
    # The tests have a mount namespace of their own.
    (r"^xdpkit: \S+ is in a mount namespace of its own: .*\n", ""),
)
# How many datagrams there was time for while something else was done.
_MEANWHILE = (
    (r"^ *(\d+) +\d+ +0 +dropped$", r"\1  SENT  0  dropped"),
    (r"^ *(\d+) +(\d+) +\2 +passed$", r"\1  SENT  SENT  passed"),
    (r"^\d+$", "SUM"),
    (r"^error: \d+ packets", "error: SENT packets"),
    (r"\d+ packets of queues? \S.*$", "SENT packets of QUEUES"),
    (r"^xdpkit: \d+ events? suppressed: .*\n", ""),
    (r"\d+ suppressed", "N suppressed"),
)
_STEPS_WITH_MEANWHILE = ("5. Replace it", "10. See what")


@pytest.fixture(autouse=True)
def built() -> None:
    shipped("demo.o")


def leftovers() -> list[str]:
    """Return the namespaces of demos that have ended."""
    found = []
    for name in os.listdir("/run/netns"):
        match = re.match(r"xdpkit-demo-(\d+)", name)
        if match and not Path("/proc", match[1]).exists():
            found.append(name)
    return found


def pins() -> set[str]:
    return set(os.listdir(PINS)) if PINS.exists() else set()


def stable(text: str) -> str:
    steps = [
        substituted(step, _MEANWHILE) if step.startswith(_STEPS_WITH_MEANWHILE) else step
        for step in re.split(r"^(?=\d+\. )", text, flags=re.MULTILINE)
    ]
    return substituted("".join(steps), _VARIABLE)


def substituted(text: str, patterns: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in patterns:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def test_the_demo_tells_its_story_and_leaves_nothing(golden: Golden) -> None:
    before = pins()
    done = xdpkit_command("demo")
    assert (done.status, done.messages) == (0, "")
    golden("demo.txt", stable(done.output))
    assert max(map(len, done.output.splitlines()[:10])) <= 80
    assert not leftovers()
    assert pins() == before


def test_the_demo_as_json_has_every_command_and_what_it_gave() -> None:
    done = xdpkit_command("demo", "-j")
    assert done.status == 0
    said = [line for line in messages_of(done).splitlines() if "suppressed: " not in line]
    assert [line.split()[1] for line in said] == ["degraded:", "watching", "fw0:", "3"]
    assert done.json["ran"] is True
    steps = {step["title"]: step for step in done.json["steps"]}
    assert steps["Send it traffic"]["traffic"] == [
        {"port": 7777, "sent": 20, "received": 0},
        {"port": 8888, "sent": 20, "received": 20},
    ]
    values = {
        entry["python"]: entry["value"] for entry in steps["Read what it counted"]["commands"]
    }
    assert values["sum(hits[xdpkit.XdpAction.DROP])"] == 20
    blocked, passed = steps["Replace it while packets arrive"]["traffic"]
    assert blocked == {"port": 7777, "sent": blocked["sent"], "received": 0}
    assert passed == {"port": 8888, "sent": passed["sent"], "received": passed["sent"]}
    assert blocked["sent"] >= 2
    *_, counted = steps["Replace it while packets arrive"]["commands"]
    assert counted["value"] == 20 + blocked["sent"]
    counted = steps["Count what it returns"]["commands"]
    assert [entry["value"] for entry in counted if "python" in entry] == [20]
    (queued, others) = steps["Give an RX queue a program of its own"]["commands"][1]["output"][
        "interfaces"
    ][0]["attached"]
    assert (queued["qid"], others["qid"]) == (1, None)
    for title in ("Be refused", "Leave other tools' programs alone"):
        *_, refused = steps[title]["commands"]
        assert refused["exit_status"] == 5
        assert refused["output"]["error"]["kind"] == "HookBusy"
    (harmed,) = steps["See what goes wrong"]["traffic"]
    assert (harmed["port"], harmed["received"]) == (9999, 0)
    attached, _, events, doctor, _ = steps["See what goes wrong"]["commands"]
    assert attached["output"]["negotiation"]["outcome"] == "degraded"
    assert [each["type"] for each in events["output"] if each["type"] != "suppressed"] == [
        *["event"] * 3,
        "total",
    ]
    assert {each.get("returned") for each in events["output"]} == {42, None}
    assert doctor["exit_status"] == 8
    worst = doctor["output"]["complaints"][0]
    assert (worst["severity"], worst["kind"]) == ("error", "invalid-action")
    assert worst["evidence"][0].startswith(f"counters: {harmed['sent']} packets of ")
    assert not leftovers()


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PLACES = (
    (0, "1. Look into"),
    (1, "attached firewall"),
    (2, "port  sent"),
    (3, ">>> sum"),
    (4, ">>> second"),
    (5, "fw0: packets and bytes are counted"),
    (6, "attached firewall to fw0 in native mode, queue 1"),
    (7, "(exit status 5"),
)


@pytest.mark.parametrize(
    ("number", "enters", "line"),
    [
        # Each place, and the signals in turn; each place with the others is for the long counts.
        pytest.param(
            *(number, enters, line),
            id=f"{number.name}-{enters}",
            marks=[] if number is _SIGNALS[enters % len(_SIGNALS)] else pytest.mark.soak,
        )
        for enters, line in _PLACES
        for number in _SIGNALS
    ],
)
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, enters: int, line: str) -> None:
    interrupt(number, enters, line)


def test_a_demo_that_is_interrupted_while_a_command_watches_leaves_nothing() -> None:
    interrupt(signal.SIGINT, 9, "xdpkit: watching fw0")


def interrupt(number: signal.Signals, enters: int, line: str) -> None:
    """Send the demo a signal once it has told a line; see that it leaves nothing."""
    before = pins()
    process = subprocess.Popen(
        [*COMMAND, "demo", "--step"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("\n" * enters)
        process.stdin.flush()
        # It cannot come to its end: after this step it waits for one more Enter.
        assert any(told.startswith(line) for told in process.stdout)
        process.send_signal(number)
        messages = process.stderr.read()
    assert process.returncode == 128 + number
    assert messages.endswith("xdpkit: interrupted; the demo's namespaces are gone again\n")
    assert not leftovers()
    assert pins() == before


def test_a_reader_that_goes_away_leaves_nothing_either() -> None:
    before = pins()
    process = subprocess.Popen([*COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
    assert not leftovers()
    assert pins() == before


def test_without_a_bpffs_the_demo_mounts_one_of_its_own_and_says_so() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("apt-get install util-linux")
    hide = (
        'while umount /sys/fs/bpf 2>/dev/null; do :; done; "$@" && ! grep xdpkit-demo /proc/mounts'
    )
    done = xdpkit_command("demo", by=["unshare", "--mount", "sh", "-c", hide, "sh"])
    assert (done.status, done.messages) == (0, "")
    assert "No BPF file system is mounted at /sys/fs/bpf" in done.output
    assert re.search(r"^\$ xdpkit attach .* --pin-root /tmp/xdpkit-demo-", done.output, re.M)
    assert "That was all" in done.output
    assert not leftovers()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="apt-get install util-linux")
def test_without_privilege_it_shows_the_program_instead() -> None:
    done = xdpkit_command("demo", by=POWERLESS)
    assert (done.status, done.messages) == (0, "")
    assert "1. What needs no privilege" in done.output
    assert not leftovers()
