# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections.abc import Callable

import click
import pytest

from tests.unit.cli.commands import run
from xdpkit import __version__
from xdpkit.cli.app import COMMANDS, cli

Golden = Callable[[str, str], None]


def help_of(command: click.Command, name: str, parent: click.Context | None = None) -> str:
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=80,
        help_option_names=["-h", "--help"],
    )
    return command.get_help(context) + "\n"


def test_the_help_of_the_whole(golden: Golden) -> None:
    golden("help.txt", help_of(cli, "xdpkit"))


@pytest.mark.parametrize(
    "name",
    [
        *COMMANDS,
        *(f"counters {verb}" for verb in ("enable", "disable", "show")),
        *(f"monitor {verb}" for verb in ("install", "remove", "show")),
    ],
)
def test_the_help_of_each_command_has_examples(name: str, golden: Golden) -> None:
    command: click.Command = cli
    parent, word = None, "xdpkit"
    for following in name.split():
        assert isinstance(command, click.Group)
        parent = click.Context(command, parent, word)
        found = command.get_command(parent, following)
        assert found is not None
        command, word = found, following
    text = help_of(command, word, parent)
    assert f"Examples:\n  xdpkit {name}" in text or f"Examples:\n  sudo xdpkit {name}" in text
    assert max(map(len, text.splitlines())) <= 80
    golden(f"help-{name.replace(' ', '-')}.txt", text)


def test_a_command_is_imported_when_it_is_called_for() -> None:
    before = set(sys.modules)
    assert run("--help").status == 0
    assert not {name for name in set(sys.modules) - before if name.startswith("xdpkit.cli.")}


def test_the_version_is_the_packages() -> None:
    assert run("--version").output == f"xdpkit {__version__}\n"
