# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli import firewall
from tests.unit.cli.commands import run
from xdpkit import errors

Golden = Callable[[str, str], None]

ERRORS = [
    errors.ObjectFormatError("is cut off", file="fw.o", section="xdp", offset=16),
    errors.UsageError("attach fw.o to eth0", cause="it has no program"),
    errors.RequirementUnmet("attach", cause="no bpffs", remedy="mount -t bpf bpf /sys/fs/bpf"),
    errors.HookBusy("attach", cause="eth0 already has program 7", remedy="detach it first"),
    errors.MissingPrivilege("load", cause="this process lacks CAP_BPF", remedy="run it as root"),
    errors.KernelRefused("attach", errno=errno.EOPNOTSUPP, extack="no native XDP"),
    errors.VerifierError("load fw", errno=errno.EACCES, cause="R0 !read_ok", log="0: (95) exit"),
    errors.CompileError("compile fw.c", cause="1 error", log="fw.c:1:1: error: no\n"),
    errors.XdpkitError("do it", cause="it did not work"),
]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Make every command that reads an object fail."""

    def fail_with(error: Exception) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr("xdpkit.obj.read", fail)

    return fail_with


def test_errors_are_told_as_what_cause_and_remedy(
    failing: Callable[[Exception], None], golden: Golden
) -> None:
    told = []
    for error in ERRORS:
        failing(error)
        outcome = run("inspect", "fw.o")
        assert outcome.output == ""
        told.append(f"{type(error).__name__}, exit status {outcome.status}\n{outcome.messages}")
    golden("errors.txt", "\n".join(told))


def test_errors_are_json_on_standard_output_where_that_was_asked_for(
    failing: Callable[[Exception], None], golden: Golden
) -> None:
    told = []
    for error in ERRORS:
        failing(error)
        outcome = run("-j", "inspect", "fw.o")
        assert outcome.messages == ""
        assert outcome.json["schema"] == 1
        assert outcome.json["error"]["exit_code"] == outcome.status
        told.append(outcome.output)
    golden("errors.json", "".join(told))


def test_the_unexpected_has_no_traceback_unless_it_is_asked_for(
    failing: Callable[[Exception], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(LookupError("no such thing"))
    outcome = run("inspect", "fw.o")
    assert outcome.status == 1
    assert outcome.messages == (
        "xdpkit: do what was asked: unexpected LookupError: no such thing\n"
        "Remedy: set XDPKIT_DEBUG=1 to see where it happened, and report that\n"
    )
    monkeypatch.setenv("XDPKIT_DEBUG", "1")
    with pytest.raises(LookupError, match="no such thing"):
        run("inspect", "fw.o")


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["inspect"], "Missing argument 'OBJECT'"),
        (["fly"], "No such command 'fly'"),
        (["inspect", "--colour", "fw.o"], "No such option '--colour'"),
        (["check", "eth0", "fw.o", "--mode", "fast"], "Invalid value for '--mode'"),
        (["run", "fw.o"], "Missing option '--input'"),
        (["run", "fw.o", "--input", "x.pcap", "--repeat", "0"], "Invalid value for '--repeat'"),
        (["detach", "eth0", "--expect", "firewall"], "Invalid value for '--expect'"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(args: list[str], cause: str) -> None:
    text = run(*args)
    assert (text.status, text.output) == (2, "")
    assert text.messages.startswith("xdpkit: read the command line: ")
    assert cause in text.messages
    for flags in (["-j"], ["-p"], ["-jp"], ["--json"]):
        json = run(*flags, *args)
        assert (json.status, json.messages) == (2, "")
        assert json.json["error"]["kind"] == "UsageError"
        assert cause in json.json["error"]["cause"]


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run()
    assert outcome.status == 2
    assert outcome.messages.startswith("Usage: xdpkit [OPTIONS] COMMAND")


@pytest.mark.parametrize("args", [["-p", "inspect"], ["inspect", "-p"], ["-j", "inspect", "-p"]])
def test_common_options_are_taken_before_and_after_the_command(
    tmp_path: Path, args: list[str]
) -> None:
    path = tmp_path / "fw.o"
    path.write_bytes(firewall.build())
    assert run(*args, path).output.startswith('{\n  "schema": 1,\n')


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    path = tmp_path / "fw.o"
    path.write_bytes(firewall.build())
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "xdpkit", "inspect", path],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run ``xdpkit`` as ``$X`` in a shell."""
    environment = {**os.environ, "X": f"{shlex.quote(sys.executable)} -m xdpkit"}
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", ["--help", "-j inspect no-such-file", "inspect no-such-file -p"])
def test_a_full_disk_is_told_once_and_is_no_bug(
    args: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = shell(f"$X {args} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "xdpkit: write to standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_or_full_changes_no_exit_status(
    closed: str, tmp_path: Path
) -> None:
    path = tmp_path / "fw.o"
    path.write_bytes(firewall.build())
    done = shell(f"$X inspect {path} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"$X fly {closed}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert shell(f"$X -j fly {closed}").returncode == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["attach", "eth0", "fw.o", "--mode", "fast"],
            "use mode 'fast': the modes are native, generic, offload (or skb, for generic)",
        ),
        (
            ["attach", "eth0", "fw.o", "--mode", "skb,generic"],
            "choose from several modes: each is to be named once, not generic, generic",
        ),
        (
            ["replace", "eth0", "fw.o", "--revert-after", "60"],
            "read '60' as a duration: it takes a number and a unit (ms, s, m, h)\n"
            "Remedy: as in: 500ms, 60s, 5m, 1.5h",
        ),
        (
            ["-n", "blue", "clean"],
            "clean up: it goes through all network namespaces, and cannot keep to one\n"
            "Remedy: leave out -n; 'xdpkit -n NAME detach IFACE' takes off one program",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_named(args: list[str], message: str) -> None:
    outcome = run(*args)
    assert (outcome.status, outcome.output) == (2, "")
    assert outcome.messages == f"xdpkit: {message}\n"
