# SPDX-License-Identifier: Apache-2.0
"""``xdpkit export``."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import pin_root_option
from xdpkit.cli.render import emit, emit_json, message
from xdpkit.errors import UsageError, XdpkitError
from xdpkit.monitor.folding import DEFAULT_MAX_SERIES

if TYPE_CHECKING:
    from xdpkit.monitor.export import Format
    from xdpkit.monitor.model import Snapshot
    from xdpkit.monitor.serving import Response

DEFAULT_LISTEN = "127.0.0.1:9435"

# Whoever collects the file is another user.
_READABLE = 0o644

_LANDING = b"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>xdpkit</title>
<h1>xdpkit</h1>
<p>What became of packets that met an XDP program: <a href="/metrics">metrics</a></p>
</html>
"""


@subcommand(
    "export",
    examples="""
xdpkit export
xdpkit export eth0 eth1 --listen [::1]:9435
xdpkit export --once
xdpkit export --once --output /var/lib/prometheus/node-exporter/xdpkit.prom
""",
)
@click.argument("ifaces", metavar="[IFACE]...", nargs=-1, shell_complete=complete.interfaces)
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="Where to answer; port 0: any free one.  [default: 127.0.0.1:9435]",
)
@click.option(
    "--max-series",
    metavar="N",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_SERIES,
    show_default=True,
    help="How many series of one metric to show; the rest is counted together, as 'other'.",
)
@click.option("--once", is_flag=True, help="Print the metrics and end.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False),
    help="With --once: write them to FILE, in one step.",
)
@pin_root_option
@pass_settings
def command(
    settings: Settings,
    ifaces: tuple[str, ...],
    listen: str | None,
    max_series: int,
    once: bool,
    output: str | None,
    pin_root: str,
) -> None:
    """Export the counters to Prometheus, by HTTP at /metrics, until Ctrl-C or SIGTERM.

    What drivers and programs say is exported of these interfaces, or of all; what the resident
    programs have counted (xdpkit monitor install), of all network namespaces. With -n, others are
    looked at; the address stays one of the namespace that the command runs in.

    What a scrape costs is bounded, whoever asks. Whoever can reach the address can read it.
    """
    if once and listen is not None:
        raise UsageError("export once", cause="--listen is for a server, and --once for none")
    if output is not None and not once:
        raise UsageError("export", cause="--output is for --once; a server has no file")
    take = functools.partial(_take, settings.netns, ifaces, pin_root)
    if once:
        _once(settings, take, max_series, output)
    else:
        _serve(settings, take, listen or DEFAULT_LISTEN, max_series)


def _take(netns: str | None, names: tuple[str, ...], pin_root: str) -> Snapshot:
    """Read what is counted; that an interface is not there, or no longer, is a note like others."""
    from xdpkit.interfaces import resolve
    from xdpkit.monitor.snapshot import take

    present, notes = [], []
    for name in names:
        try:
            present.append(resolve(name, netns=netns).name)
        except UsageError as error:
            notes.append(f"{name} cannot be looked at: {error.cause}.")
    found = take(netns=netns, interfaces=present if names else None, pin_root=pin_root)
    return replace(found, notes=(*notes, *found.notes))


def _once(
    settings: Settings, take: Callable[[], Snapshot], max_series: int, output: str | None
) -> None:
    from xdpkit.monitor.export import Exporter
    from xdpkit.monitor.samples import samples

    if settings.json and output is None:
        found = take()
        data = [
            {"name": each.metric.name, "labels": dict(each.labelled), "value": each.value}
            for each in samples(found)
        ]
        emit_json({"samples": data, "notes": list(found.notes)}, pretty=settings.pretty)
        return
    exporter = Exporter(take, max_series=max_series, report=message)
    exporter.read()
    page = exporter.page()
    if output is None:
        emit(page.decode().splitlines())
    else:
        replace_file(output, page)


def replace_file(path: str, content: bytes) -> None:
    """Write a file so that whoever reads it has the old content or the new one, as a whole.

    Raises:
        UsageError: there is something that is no file.
        XdpkitError: it cannot be written.
    """
    what = f"write {path}"
    # What a symbolic link points at is meant, not the link.
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(what, cause="it is not a regular file, and cannot be replaced")
    temporary = None
    try:
        # Collectors go by the ending, and must not take it for one of theirs.
        number, temporary = tempfile.mkstemp(
            dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.", suffix=".tmp"
        )
        with open(number, "wb") as file:
            os.fchmod(number, _READABLE)
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise XdpkitError(what, cause=str(error.strerror)) from None


def _serve(settings: Settings, take: Callable[[], Snapshot], address: str, max_series: int) -> None:
    from xdpkit.monitor.export import Exporter
    from xdpkit.monitor.serving import Server, listen, url

    with listen(address) as listening:
        exporter = Exporter(take, max_series=max_series, report=message)
        # What is missing for good, such as a privilege, is better said now than in each scrape.
        exporter.read()
        place = url(listening, "/metrics")

        def ready() -> None:
            if settings.json:
                emit_json({"url": place}, pretty=settings.pretty)
            else:
                emit([place])
            sys.stdout.flush()

        Server(listening, functools.partial(answer, exporter.page), message).run(ready)


def answer(page: Callable[[Format], bytes], path: str, accept: str) -> Response:
    """Return the answer to a request for a path: the metrics, or a page that leads to them."""
    from xdpkit.monitor.export import Format
    from xdpkit.monitor.serving import Response, failure

    if path == "/metrics":
        chosen = Format.accepted(accept)
        return Response(page(chosen), chosen.value, headers=(("Vary", "Accept"),))
    if path == "/":
        return Response(_LANDING, "text/html; charset=utf-8")
    return failure(HTTPStatus.NOT_FOUND)
