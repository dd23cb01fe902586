# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli import firewall
from tests.unit.cli.commands import run
from xdpkit.cli import render

Golden = Callable[[str, str], None]


@pytest.fixture
def object_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A relative path, so that what is printed does not depend on where the tests run."""
    monkeypatch.chdir(tmp_path)
    Path("fw.o").write_bytes(firewall.build())
    return "fw.o"


def test_inspect_shows_all_that_is_in_an_object(object_path: str, golden: Golden) -> None:
    outcome = run("inspect", object_path)
    assert (outcome.status, outcome.messages) == (0, "")
    golden("inspect.txt", outcome.output)


def test_inspect_prints_the_same_as_json(object_path: str, golden: Golden) -> None:
    outcome = run("inspect", object_path, "--disassemble", "--pretty")
    assert (outcome.status, outcome.messages) == (0, "")
    golden("inspect.json", outcome.output)


def test_a_disassembly_has_source_lines_functions_and_names(
    object_path: str, golden: Golden
) -> None:
    outcome = run("inspect", object_path, "firewall", "--disassemble")
    assert outcome.status == 0
    golden("disassembly.txt", outcome.output)


def test_a_narrow_terminal_gets_narrow_tables(
    object_path: str, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdpkit.cli.inspect.width", lambda: 80)
    outcome = run("inspect", object_path)
    assert max(map(len, outcome.output.splitlines())) <= 80
    golden("inspect-80.txt", outcome.output)


def test_the_width_is_unlimited_where_the_output_is_no_terminal() -> None:
    assert render.width() is None


def test_one_program_can_be_asked_for(object_path: str) -> None:
    outcome = run("inspect", "-j", object_path, "egress")
    assert [program["name"] for program in outcome.json["programs"]] == ["egress"]
    assert outcome.json["programs"][0]["flags"] == ["XDP_HAS_FRAGS"]


def test_a_program_that_is_not_there_is_the_callers_mistake(object_path: str) -> None:
    outcome = run("inspect", object_path, "fierwall")
    assert outcome.status == 2
    assert outcome.messages == (
        "xdpkit: inspect fw.o: fw.o has no program 'fierwall'\n"
        "Remedy: choose from: firewall, egress\n"
    )


def test_names_and_values_of_an_object_cannot_command_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "fw.o"
    path.write_bytes(firewall.build(program="fire\x1b]0;wall\a", label=b"\x1b[31m\x9b"))
    for arguments in (["inspect", path], ["inspect", path, "--disassemble"]):
        outcome = run(*arguments)
        assert outcome.status == 0
        assert "fire\\x1b]0;wall\\x07" in outcome.output
        assert "\x1b" not in outcome.output
        assert "\a" not in outcome.output


def test_markup_in_names_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "fw.o"
    path.write_bytes(firewall.build(program="[red]wall[/red]"))
    assert "[red]wall[/red]  xdp " in run("inspect", path).output


@pytest.mark.parametrize("cut", [0, 3, 64, 400])
def test_a_broken_object_is_named_as_the_culprit(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.o"
    path.write_bytes(firewall.build()[:cut])
    text = run("inspect", path)
    assert (text.status, text.output) == (6, "")
    assert text.messages.startswith(f"xdpkit: read {path}")
    error = run("inspect", path, "-j").json["error"]
    assert (error["kind"], error["file"], error["exit_code"]) == (
        "ObjectFormatError",
        str(path),
        6,
    )
