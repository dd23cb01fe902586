# SPDX-License-Identifier: Apache-2.0
"""``xdpkit include``."""

from __future__ import annotations

import click

from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.render import emit_json


@subcommand(
    "include",
    examples="""
xdpkit include
clang -target bpf -O2 -g -I"$(xdpkit include)" -c fw.c -o fw.o
""",
)
@pass_settings
def command(settings: Settings) -> None:
    """Print the folder of xdpkit.h, for a compiler's option -I.

    'xdpkit build' finds it without further ado.
    """
    from xdpkit.compiler import INCLUDE_DIR

    if settings.json:
        emit_json({"include": str(INCLUDE_DIR)}, pretty=settings.pretty)
        return
    # As it is: a shell puts it into a command line.
    click.echo(str(INCLUDE_DIR))
