# SPDX-License-Identifier: Apache-2.0
"""What the shell can complete: names of interfaces, programs, modes; ids and queues; and more.

A completion that fails has nothing to offer; it never prints an error into the command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from xdpkit.errors import XdpkitError

if TYPE_CHECKING:
    from xdpkit.hook import AttachedProgram
    from xdpkit.interfaces import Interface
    from xdpkit.tables.model import Table


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
    ids = dict.fromkeys(found.program.id for found in _programs(ctx))
    return _starting(incomplete, map(str, ids))


def queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the RX queues of the interface that the command line names, to go on a list."""
    interface = _interface(ctx)
    return _listed(incomplete, range(interface.rx_queues) if interface is not None else ())


def served_queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the RX queues that have a program of their own, to go on a list."""
    return _listed(incomplete, [found.qid for found in _programs(ctx) if found.qid is not None])


def _listed(incomplete: str, queues: Iterable[int]) -> list[str]:
    """Return the queues that can go on a list that has been begun."""
    from xdpkit.hook.scope import parse

    begun, comma, rest = incomplete.rpartition(",")
    try:
        taken = parse(begun) if begun else ()
    except XdpkitError:
        return []
    return [
        f"{begun}{comma}{queue}"
        for queue in queues
        if queue not in taken and str(queue).startswith(rest)
    ]


def _programs(ctx: click.Context) -> tuple[AttachedProgram, ...]:
    from xdpkit.hook import status

    interface = _interface(ctx)
    if interface is None:
        return ()
    try:
        (hook,) = status(iface=interface.index, netns=interface.netns)
    except XdpkitError:
        return ()
    return hook.programs


def _interface(ctx: click.Context) -> Interface | None:
    """Return the interface that the command line names."""
    from xdpkit.cli.command import Settings
    from xdpkit.interfaces import resolve

    settings = ctx.find_object(Settings) or Settings()
    # In the middle of an option, click has not yet told the arguments apart.
    for name in (ctx.params.get("iface"), *ctx.args):
        try:
            return resolve(name or "", netns=settings.netns)
        except XdpkitError:
            continue
    return None


def modes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the modes that can go on a list of modes."""
    from xdpkit.hook.mode import Mode

    begun, comma, rest = incomplete.rpartition(",")
    names = (mode.value for mode in Mode if mode.value not in begun.split(","))
    return [f"{begun}{comma}{name}" for name in _starting(rest, names)]


def port_tables(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of port tables."""
    from xdpkit.tables import store

    try:
        return _starting(incomplete, store.names())
    except XdpkitError:
        return []


def ports(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the ports of the table that the command line names."""
    table = _port_table(ctx)
    return _starting(incomplete, (port.name for port in table.ports)) if table is not None else []


def port_sets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the sets of the table that the command line names."""
    table = _port_table(ctx)
    return _starting(incomplete, (each.name for each in table.sets)) if table is not None else []


def _port_table(ctx: click.Context) -> Table | None:
    from xdpkit.tables import store

    # In the middle of an option, click has not yet told the arguments apart.
    for name in (ctx.params.get("table_name"), *ctx.args):
        try:
            with store.open(name or "") as found:
                return found.read()
        except XdpkitError:
            continue
    return None


def compilers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the compilers that are here."""
    from xdpkit.compiler import find_compilers

    return _starting(incomplete, (compiler.name for compiler in find_compilers()))
