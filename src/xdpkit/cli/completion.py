# SPDX-License-Identifier: Apache-2.0
"""``xdpkit completion``."""

from __future__ import annotations

import click

from xdpkit.cli.command import subcommand


@subcommand(
    "completion",
    examples="""
xdpkit completion bash > ~/.local/share/bash-completion/completions/xdpkit
xdpkit completion zsh > ~/.zfunc/_xdpkit
xdpkit completion fish > ~/.config/fish/completions/xdpkit.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes a shell complete xdpkit's commands.

    Names of commands, options, interfaces, namespaces and programs are completed.
    """
    from click.shell_completion import get_completion_class

    from xdpkit.cli.app import COMPLETE_VARIABLE, PROG, cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, PROG, COMPLETE_VARIABLE).source())
