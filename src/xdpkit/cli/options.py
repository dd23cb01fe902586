# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands take, and what they mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from xdpkit.cli import complete
from xdpkit.cli.duration import duration_callback
from xdpkit.cli.render import message
from xdpkit.errors import UsageError, VerifierError
from xdpkit.uapi.bpf import AttachType, ProgType

if TYPE_CHECKING:
    from xdpkit.hook import Mode
    from xdpkit.obj import Object, ProgramSpec

_F = TypeVar("_F", bound=Callable[..., Any])

DEFAULT_PIN_ROOT = "/sys/fs/bpf"


def interface_argument(*, required: bool = True) -> Callable[[_F], _F]:
    """Add the argument IFACE."""
    return click.argument(
        "iface",
        metavar="IFACE" if required else "[IFACE]",
        required=required,
        shell_complete=complete.interfaces,
    )


object_argument = click.argument("object_path", metavar="OBJECT", type=click.Path())

program_option = click.option(
    "--program",
    "program_name",
    metavar="NAME",
    shell_complete=complete.programs,
    help="The program's name; needed where the object has several.",
)

mode_option = click.option(
    "--mode",
    type=click.Choice(["native", "generic", "skb", "offload"]),
    metavar="MODE",
    default="native",
    show_default=True,
    help="native: in the driver; generic, or skb: in the network stack; offload: on the NIC.",
)


def _modes(ctx: click.Context, param: click.Parameter, text: str) -> tuple[Mode, ...] | None:
    """Return the modes, None if none was asked for: then it depends on what is there already."""
    from xdpkit.hook import Mode

    was_given = ctx.get_parameter_source(param.name or "") is not ParameterSource.DEFAULT
    return Mode.choice(text) if was_given else None


modes_option = click.option(
    "--mode",
    "modes",
    metavar="MODE[,MODE]",
    default="native",
    show_default=True,
    callback=_modes,
    shell_complete=complete.modes,
    help="native: in the driver; generic, or skb: in the network stack; offload: on the NIC."
    " Several are tried in their order.",
)

expect_option = click.option(
    "--expect",
    metavar="ID",
    type=click.IntRange(min=1),
    shell_complete=complete.program_ids,
    help="Only if this program is on it, whoever put it there; 'xdpkit status' shows ids.",
)

dry_run_option = click.option("--dry-run", is_flag=True, help="Only tell what would change.")

revert_after_option = click.option(
    "--revert-after",
    metavar="TIME",
    callback=duration_callback,
    help="Undo it after this time (500ms, 60s, 5m, 1h), unless 'xdpkit confirm IFACE' is called"
    " before.",
)

policy_option = click.option(
    "--policy",
    type=click.Choice(["strict", "default", "report"]),
    metavar="POLICY",
    default="default",
    show_default=True,
    help="strict: refuse what is not known, too; default: let that pass; report: stop nothing.",
)

target_option = click.option(
    "--target",
    "targets",
    metavar="IFACE",
    multiple=True,
    shell_complete=complete.interfaces,
    help="An interface that the program redirects to. May be repeated.",
)

ports_option = click.option(
    "--ports",
    "table",
    metavar="TABLE",
    shell_complete=complete.port_tables,
    help="The port table that the program is to use; needed where the interface is a port of"
    " several.",
)

set_option = click.option(
    "--set",
    "assignments",
    metavar="VAR=VALUE",
    multiple=True,
    help="Set a global variable before the load: a number, true or false, an enumerator, text for"
    " an array of char, JSON for other arrays and for structs. May be repeated.",
)

pin_root_option = click.option(
    "--pin-root",
    metavar="FOLDER",
    type=click.Path(file_okay=False, readable=False),
    default=DEFAULT_PIN_ROOT,
    show_default=True,
    help="The BPF file system that holds the pins.",
)

verifier_log_option = click.option(
    "--verifier-log",
    "log_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False),
    help="Write the verifier's whole log to FILE if it refuses the program.",
)


@contextlib.contextmanager
def keeping_log(path: str | None) -> Iterator[None]:
    """Write the verifier's log to a file if it refuses a program within the ``with`` block."""
    try:
        yield
    except VerifierError as error:
        if path is not None:
            try:
                Path(path).write_text(error.log, errors="backslashreplace")
                message(f"the verifier's log is in {path}")
            except OSError as refused:
                message(f"the verifier's log could not be written to {path}: {refused.strerror}")
        raise


def choose_program(obj: Object, name: str | None, *, what: str) -> ProgramSpec:
    """Return the program that was asked for, or the only one that an interface can have.

    Raises:
        UsageError: there is no such program, or several to choose from.
    """
    if name is not None:
        found = obj.programs.get(name)
        if found is None:
            raise UsageError(
                what,
                cause=f"{obj.path} has no program {name!r}",
                remedy=f"choose from: {', '.join(obj.programs)}" if obj.programs else None,
            )
        return found
    fitting = [spec for spec in obj.programs.values() if is_for_interfaces(spec)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UsageError(what, cause=f"{obj.path} has no XDP program for an interface")
    names = ", ".join(spec.name for spec in fitting)
    raise UsageError(
        what,
        cause=f"{obj.path} has {len(fitting)} programs to choose from: {names}",
        remedy="name one: --program NAME",
    )


def is_for_interfaces(spec: ProgramSpec) -> bool:
    """Whether an interface can have it: not so what devmaps and cpumaps run, and tracing."""
    return spec.type == ProgType.XDP and spec.attach_type == AttachType.XDP
