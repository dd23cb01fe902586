# SPDX-License-Identifier: Apache-2.0
"""The group of commands, and what becomes of errors."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from xdpkit import __version__
from xdpkit.cli import streams
from xdpkit.cli.command import COMMON_OPTIONS
from xdpkit.cli.render import complain, emit_json, message, printable
from xdpkit.errors import CompileError, UsageError, XdpkitError

PROG = "xdpkit"
COMPLETE_VARIABLE = "_XDPKIT_COMPLETE"

# Name → (module, what the list of commands says about it), in the order of that list.
COMMANDS = {
    "inspect": ("inspect", "Show what is in an object file."),
    "device": ("device", "Show what an interface offers to XDP programs."),
    "check": ("check", "Hold a program against an interface; nothing is loaded."),
    "attach": ("attach", "Load a program and put it on an interface, to stay."),
    "replace": ("replace", "Put a program in the place of another, in one step."),
    "detach": ("detach", "Take a program off an interface."),
    "confirm": ("confirm", "Keep a change that would be undone after a time."),
    "status": ("status", "Show which interfaces have which programs."),
    "counters": ("counters", "Count what programs return, by RX queue and action."),
    "monitor": ("monitor", "Count what goes wrong on the whole machine, and watch it."),
    "events": ("events", "Show each packet that goes wrong, as it happens."),
    "capture": ("capture", "Show or write packets with what the program returned for them."),
    "export": ("export", "Offer all counters to Prometheus (OpenMetrics)."),
    "doctor": ("doctor", "Say what is wrong, why, and what to do."),
    "ports": ("ports", "Give interfaces numbers, by which programs redirect to them."),
    "forward": ("forward", "Forward between ports: as a layer-2 switch, or as a router."),
    "clean": ("clean", "Remove what is left over, or every trace of xdpkit."),
    "build": ("build", "Compile C into an object file."),
    "include": ("include", "Print the folder of xdpkit.h."),
    "run": ("run", "Run a program over captured packets."),
    "demo": ("demo.command", "See it all at work on private network namespaces."),
    "completion": ("completion", "Print the script that completes commands in a shell."),
}

# -j or -p, alone or among other flags: what comes first decides how errors look.
_JSON_FLAG = re.compile(r"-[jp]")


class _Group(click.Group):
    """Imports a command when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = import_module(f"xdpkit.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(
            "\n'xdpkit COMMAND --help' has examples.\n"
            "\n"
            "Exit status: 0 done, 1 unexpected, 2 usage, 3 a requirement is not met, 4 refused by\n"
            "the kernel, 5 someone else's program is there, 6 bad object file, 7 privilege is\n"
            "missing, 8 'doctor' found something wrong.\n"
        )


cli = _Group(
    name=PROG,
    params=[*COMMON_OPTIONS()],
    help="Read, load and attach XDP programs.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
click.version_option(__version__, prog_name=PROG, message="%(prog)s %(version)s")(cli)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    streams.prepare()
    try:
        instruction = os.environ.get(COMPLETE_VARIABLE)
        if instruction is not None:
            status = _complete(instruction)
        else:
            status = execute(sys.argv[1:] if args is None else args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        status = 128 + signal.SIGPIPE
    except streams.OutputFailed as error:
        message(str(error))
        status = error.exit_code
    streams.settle()
    sys.exit(status)


def execute(args: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Errors are shown; interrupts, and those of a standard output that takes no more, go through.
    """
    try:
        with cli.make_context(PROG, list(args)) as context:
            cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        complain(error.format_message())
        return UsageError.exit_code
    except click.ClickException as error:
        return _show(_usage_error(error), args)
    except (BrokenPipeError, streams.OutputFailed):
        raise
    except XdpkitError as error:
        return _show(error, args)
    except Exception as error:
        if os.environ.get("XDPKIT_DEBUG"):
            raise
        return _show(_unexpected(error), args)
    return 0


def _complete(instruction: str) -> int:
    """Answer a shell that asks for completions, by click's protocol."""
    from click.shell_completion import shell_complete

    return shell_complete(cli, {}, PROG, COMPLETE_VARIABLE, instruction)


def _usage_error(error: click.ClickException) -> XdpkitError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return UsageError(
        "read the command line",
        cause=error.format_message().rstrip("."),
        remedy=f"see {context.command_path if context else PROG} --help",
    )


def _unexpected(error: Exception) -> XdpkitError:
    where = type(error).__qualname__
    return XdpkitError(
        "do what was asked",
        cause=f"unexpected {where}: {error}" if str(error) else f"unexpected {where}",
        remedy="set XDPKIT_DEBUG=1 to see where it happened, and report that",
    )


def _show(error: XdpkitError, args: Sequence[str]) -> int:
    if _wants_json(args):
        details = error.to_dict()
        if isinstance(error, CompileError):
            details["log"] = error.log
        emit_json(
            {"error": {**details, "exit_code": error.exit_code}},
            pretty=any(re.match(r"--pretty$|-j?p", arg) for arg in args),
        )
    else:
        if isinstance(error, CompileError) and error.log:
            complain(printable(error.log.rstrip(), keep="\n\t"))
            error = CompileError(
                error.what, cause="it does not compile, see above", remedy=error.remedy
            )
        message(str(error))
    return error.exit_code


def _wants_json(args: Sequence[str]) -> bool:
    """Whether errors are to be JSON: decided without click, whose parsing may be what failed."""
    return any(arg in ("--json", "--pretty") or _JSON_FLAG.match(arg) for arg in args)
