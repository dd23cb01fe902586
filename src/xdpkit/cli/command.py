# SPDX-License-Identifier: Apache-2.0
"""What the commands have in common: options that each takes, and examples in the help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from xdpkit.cli import complete


@dataclass(slots=True)
class Settings:
    """The options that every command takes, before or after its name.

    Attributes:
        netns: the network namespace to work in, None: the caller's own.
        json: print JSON. pretty: print it indented.
    """

    netns: str | None = None
    json: bool = False
    pretty: bool = False


def _set_netns(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Settings).netns = value


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).json = True


def _set_pretty(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).json = True
        ctx.ensure_object(Settings).pretty = True


def COMMON_OPTIONS() -> list[click.Option]:
    """Return the options that the group and every command take."""
    return [
        click.Option(
            ["-n", "--netns"],
            metavar="NAME",
            expose_value=False,
            callback=_set_netns,
            shell_complete=complete.namespaces,
            help="Work in this network namespace: a name of 'ip netns', or a path.",
        ),
        click.Option(
            ["-j", "--json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Print JSON, errors included.",
        ),
        click.Option(
            ["-p", "--pretty"],
            is_flag=True,
            expose_value=False,
            callback=_set_pretty,
            help="Print JSON indented.",
        ),
    ]


class Command(click.Command):
    """A command with the common options and with examples at the end of its help."""

    def __init__(self, *args: Any, examples: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += COMMON_OPTIONS()
        self._examples = examples.strip("\n").splitlines()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for line in self._examples:
                formatter.write(f"  {line}".rstrip() + "\n")


class Group(Command, click.Group):
    """Commands that share a first word; what they are called comes in the order of their making."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def subcommand(name: str, *, examples: str) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that makes a :class:`Command` of a function.

    Args:
        name: what the command is called.
        examples: command lines, which the help shows as they are.
    """
    return click.command(name, cls=Command, examples=examples)


def subcommands(name: str, *, examples: str) -> Callable[[Callable[..., Any]], Group]:
    """Return a decorator that makes a :class:`Group` of a function; the arguments are as above."""
    return click.group(name, cls=Group, examples=examples)


pass_settings = click.make_pass_decorator(Settings, ensure=True)
