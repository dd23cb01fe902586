# SPDX-License-Identifier: Apache-2.0
"""What the shell can complete: names of interfaces, namespaces, programs, modes, compilers.

A completion that fails has nothing to offer; it never prints an error into the command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from xdpkit.errors import XdpkitError


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of network namespaces."""
    from xdpkit.syscalls.netns import NAMED_FOLDER

    try:
        return _starting(incomplete, os.listdir(NAMED_FOLDER))
    except OSError:
        return []


def interfaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of interfaces in the namespace that ``-n`` chose."""
    import socket

    from xdpkit.cli.command import Settings
    from xdpkit.syscalls.netns import entered

    settings = ctx.find_object(Settings) or Settings()
    try:
        with entered(settings.netns):
            return _starting(incomplete, (name for _, name in socket.if_nameindex()))
    except (OSError, XdpkitError):
        return []


def programs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the programs in the object that the command line names."""
    from xdpkit.obj import read

    # In the middle of an option, click has not yet told the arguments apart.
    for path in (ctx.params.get("object_path"), *reversed(ctx.args)):
        try:
            return _starting(incomplete, read(path or "").programs)
        except XdpkitError:
            continue
    return []


def program_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of the programs on the interface that the command line names."""
    from xdpkit.cli.command import Settings
    from xdpkit.hook.looking import programs_of
    from xdpkit.interfaces import resolve

    settings = ctx.find_object(Settings) or Settings()
    for name in (ctx.params.get("iface"), *ctx.args):
        try:
            interface = resolve(name or "", netns=settings.netns)
        except XdpkitError:
            continue
        return _starting(incomplete, (str(number) for _, number in programs_of(interface)))
    return []


def modes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the modes that can go on a list of modes."""
    from xdpkit.hook.mode import Mode

    begun, comma, rest = incomplete.rpartition(",")
    names = (mode.value for mode in Mode if mode.value not in begun.split(","))
    return [f"{begun}{comma}{name}" for name in _starting(rest, names)]


def compilers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the compilers that are here."""
    from xdpkit.compiler import find_compilers

    return _starting(incomplete, (compiler.name for compiler in find_compilers()))
