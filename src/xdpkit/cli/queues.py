# SPDX-License-Identifier: Apache-2.0
"""The option ``--queue``, and what the commands call the RX queues that a program serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from xdpkit.cli import complete

if TYPE_CHECKING:
    from xdpkit.hook import AttachedProgram

_F = TypeVar("_F", bound=Callable[..., Any])


def _queues(_: click.Context, __: click.Parameter, text: str | None) -> frozenset[int] | None:
    from xdpkit.hook.scope import parse

    return None if text is None else parse(text)


def queue_option(text: str, *, served: bool = False) -> Callable[[_F], _F]:
    """Add the option ``--queue SPEC``, which the command gets as ``queues``.

    Args:
        text: its help.
        served: whether only queues with a program of their own are meant.
    """
    return click.option(
        "--queue",
        "queues",
        metavar="SPEC",
        callback=_queues,
        shell_complete=complete.served_queues if served else complete.queues,
        help=f"{text} As in: 3, or 0-3,8.",
    )


def served(programs: Iterable[AttachedProgram]) -> list[tuple[AttachedProgram, str]]:
    """Return programs with the queues that each serves: "0-3, 8", and "others" for the global one.

    A program that serves several queues is there once, where its first one is.
    """
    first: dict[tuple[int, bool], AttachedProgram] = {}
    queues: dict[tuple[int, bool], list[int]] = {}
    for found in programs:
        key = found.program.id, found.qid is None
        first.setdefault(key, found)
        queues.setdefault(key, []).extend(() if found.qid is None else (found.qid,))
    return [(found, format_queues(queues[key]) or "others") for key, found in first.items()]


def format_queues(queues: Iterable[int]) -> str:
    """Return queues for people: "0-3, 8"."""
    from xdpkit.hook.scope import ranges

    return ranges(queues).replace(",", ", ")
