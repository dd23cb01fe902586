# SPDX-License-Identifier: Apache-2.0
"""Tells the demo's story: what it does, as commands that the reader can repeat, and what came out.

Every command shown is the command that is run, in this process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import select
import shlex
import sys
import textwrap
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import click

from xdpkit.cli.app import execute
from xdpkit.cli.command import Settings
from xdpkit.cli.demo.interrupts import Interrupts
from xdpkit.cli.demo.traffic import Delivery
from xdpkit.cli.render import Column, table

_POLL_S = 0.1
_WIDTH = 78


class Teller:
    """Prints the steps as they happen, or collects them for one JSON document."""

    def __init__(self, settings: Settings, interrupts: Interrupts, *, pausing: bool) -> None:
        """Begin.

        Args:
            settings: whether the output is JSON.
            interrupts: may end the demo at each step.
            pausing: wait for Enter after each step.
        """
        self._json = settings.json
        self._interrupts = interrupts
        self._pausing = pausing
        self._names: dict[str, Any] = {}
        self._number = 0
        self.steps: list[dict[str, object]] = []

    def step(self, title: str, *paragraphs: str) -> None:
        """Begin a step of the story."""
        if self._pausing and self._number:
            self._wait_for_enter()
        self._interrupts.checkpoint()
        self._number += 1
        self.steps.append({"title": title, "commands": []})
        if not self._json:
            click.secho(f"\n{self._number}. {title}", bold=True)
            for paragraph in paragraphs:
                self.explain(paragraph)
                self.say()

    def say(self, text: str = "") -> None:
        """Print a line of the story."""
        if not self._json:
            click.echo(text)

    def explain(self, text: str) -> None:
        """Print a paragraph of the story."""
        self.say(textwrap.fill(text, _WIDTH))

    def show_folder(self, folder: str) -> None:
        """Show that the commands are run in another folder."""
        if not self._json:
            self._prompt("$", f"cd {shlex.quote(folder)}")

    def command(self, args: Sequence[str]) -> int:
        """Show an xdpkit command and run it; return its exit status."""
        text = shlex.join(["xdpkit", *args])
        if not self._json:
            self._prompt("$", text)
            # A refusal belongs to the story, wherever that goes.
            with contextlib.redirect_stderr(sys.stdout):
                return execute(args)
        captured = io.StringIO()
        with contextlib.redirect_stdout(captured):
            status = execute(["-j", *args])
        # Each document is a line of its own.
        documents = [json.loads(line) for line in captured.getvalue().splitlines()]
        output = documents[0] if len(documents) == 1 else documents
        self._record(command=text, exit_status=status, output=output)
        return status

    def python(self, statement: str) -> Any:
        """Show a line of Python and run it, as the interactive interpreter does.

        Returns:
            the value, if it is an expression.
        """
        try:
            code = compile(statement, "<demo>", "eval")
        except SyntaxError:
            exec(compile(statement, "<demo>", "exec"), self._names)
            value = None
        else:
            value = eval(code, self._names)
        if self._json:
            self._record(python=statement, value=value)
        else:
            self._prompt(">>>", statement)
            if value is not None:
                click.echo(repr(value))
        return value

    def traffic(self, deliveries: Sequence[Delivery]) -> None:
        """Show what became of datagrams."""
        if self._json:
            self.steps[-1]["traffic"] = [dataclasses.asdict(delivery) for delivery in deliveries]
            return
        columns = [
            Column("port", right=True),
            Column("sent", right=True),
            Column("received", right=True),
            Column(""),
        ]
        rows = [
            [str(found.port), str(found.sent), str(found.received), found.verdict]
            for found in deliveries
        ]
        for line in table(columns, rows):
            click.echo(line)

    def _prompt(self, prompt: str, text: str) -> None:
        click.echo(f"{click.style(prompt, fg='green')} {click.style(text, bold=True)}")

    def _record(self, **command: object) -> None:
        commands = self.steps[-1]["commands"]
        assert isinstance(commands, list)
        commands.append(command)

    def _wait_for_enter(self) -> None:
        click.secho("\n[Enter]", dim=True, nl=False, err=True)
        source = sys.stdin.fileno()
        pressed = b" "
        # Byte by byte: what Python would have in its buffer, select() would not see.
        while pressed not in (b"\n", b""):
            self._interrupts.checkpoint()
            if select.select([source], [], [], _POLL_S)[0]:
                pressed = os.read(source, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for value in self._names.values():
            close = getattr(value, "close", None)
            if close is not None and not isinstance(value, type):
                close()
