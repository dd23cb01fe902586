# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from tests.unit.cli import firewall
from tests.unit.cli.commands import run
from xdpkit.cli.app import cli


def completions(*args: str, incomplete: str = "") -> list[str]:
    shell = ShellComplete(cli, {}, "xdpkit", "_XDPKIT_COMPLETE")
    return [item.value for item in shell.get_completions(list(args), incomplete)]


def test_commands_and_options_are_completed() -> None:
    assert completions(incomplete="sta") == ["status"]
    assert "--verifier-log" in completions("attach", incomplete="--v")


def test_interfaces_are_completed() -> None:
    names = [name for _, name in socket.if_nameindex()]
    assert completions("attach") == sorted(names)
    assert completions("status", incomplete="lo") == sorted(n for n in names if n[:2] == "lo")


def test_programs_of_the_object_are_completed(tmp_path: Path) -> None:
    path = tmp_path / "fw.o"
    path.write_bytes(firewall.build())
    assert completions("inspect", str(path)) == ["egress", "firewall"]
    assert completions("attach", "lo", str(path), "--program", incomplete="f") == ["firewall"]


def test_modes_are_completed_one_after_the_other() -> None:
    assert completions("attach", "--mode", incomplete="n") == ["native"]
    assert completions("attach", "--mode", incomplete="native,") == [
        "native,generic",
        "native,offload",
    ]


def test_a_completion_that_fails_offers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken.o"
    path.write_bytes(b"nothing of the kind")
    assert completions("inspect", str(path)) == []
    assert completions("run", "--program") == []
    assert completions("detach", "no-such-interface", "--expect") == []
    assert completions("-n", "no-such-namespace", "status") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_is_one_that_it_takes(shell: str, tmp_path: Path) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("bash is not installed: apt-get install bash")
    script = tmp_path / "script"
    outcome = run("completion", shell)
    script.write_text(outcome.output)
    assert "_XDPKIT_COMPLETE" in outcome.output
    if shutil.which(shell):
        subprocess.run([shell, "-n", script], check=True)
