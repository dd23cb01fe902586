# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from tests.unit.cli.commands import run


def test_the_folder_of_the_header_is_printed_as_a_shell_wants_it() -> None:
    outcome = run("include")
    assert (outcome.status, outcome.messages) == (0, "")
    assert Path(outcome.output.removesuffix("\n"), "xdpkit.h").is_file()


def test_the_folder_of_the_header_is_the_same_as_json() -> None:
    assert run("include", "-j").json == {"schema": 1, "include": run("include").output[:-1]}
