# SPDX-License-Identifier: Apache-2.0
"""``xdpkit check`` against profiles, which needs no kernel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli import firewall
from tests.unit.cli.commands import run

Golden = Callable[[str, str], None]

OLD = {
    "schema": 1,
    "name": "old driver",
    "otherwise": "no",
    "findings": {"action-pass": "yes", "action-drop": "yes"},
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, so that what is printed does not depend on where the tests run."""
    monkeypatch.chdir(tmp_path)
    Path("fw.o").write_bytes(firewall.build())
    Path("old.json").write_text(json.dumps(OLD))


def test_a_refusal_has_the_line_the_evidence_and_the_remedy(golden: Golden) -> None:
    outcome = run("check", "fw.o", "--program", "firewall", "--profile", "old.json")
    assert (outcome.status, outcome.messages) == (3, "")
    golden("check.txt", outcome.output)


def test_the_verdicts_are_the_same_as_json(golden: Golden) -> None:
    outcome = run("check", "fw.o", "--program", "firewall", "--profile", "old.json", "-p")
    assert (outcome.status, outcome.messages) == (3, "")
    golden("check.json", outcome.output)


def test_report_only_says_the_same_with_success() -> None:
    args = ["check", "fw.o", "--program", "firewall", "--profile", "old.json"]
    assert run(*args, "--policy", "report").status == 0
    assert run(*args, "--policy", "report").output == run(*args).output


def test_generic_mode_does_what_the_driver_does_not() -> None:
    outcome = run(
        "check", "fw.o", "--program", "firewall", "--profile", "old.json", "--mode", "skb", "-j"
    )
    assert outcome.status == 0
    assert (outcome.json["mode"], outcome.json["outcome"]) == ("generic", "accepted")


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["fw.o"], "it takes an interface and an object file"),
        (["eth0", "fw.o", "more"], "it takes an interface and an object file"),
        (["eth0", "fw.o", "--profile", "old.json"], "with a profile it takes an object file only"),
        (["fw.o", "--program", "firewall", "--profile", "absent.json"], "No such file"),
        (["fw.o", "--program", "firewall", "--profile", "nobody@6.1"], "no driver 'nobody'"),
        (["fw.o", "--program", "firewall", "--profile", "./"], "Is a directory"),
    ],
)
def test_what_makes_no_sense_is_the_callers_mistake(args: list[str], cause: str) -> None:
    outcome = run("check", *args)
    assert outcome.status == 2
    assert cause in outcome.messages


def test_a_hostile_profile_is_refused_and_its_name_escaped() -> None:
    Path("bad.json").write_text('{"schema": 1, "name": "\\u001b[2J"}')
    outcome = run("check", "fw.o", "--program", "firewall", "--profile", "bad.json")
    assert "\x1b" not in outcome.output

    Path("bad.json").write_bytes(b"\xff\xfe{}")
    outcome = run("check", "fw.o", "--program", "firewall", "--profile", "bad.json")
    assert outcome.status == 2
    assert "not JSON" in outcome.messages
