# SPDX-License-Identifier: Apache-2.0
"""``xdpkit build``."""

from __future__ import annotations

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.render import counted, emit, emit_json, printable


@subcommand(
    "build",
    examples="""
xdpkit build fw.c
xdpkit build fw.c -o /tmp/fw.o -D MAX_PORTS=16
xdpkit build fw.c --compiler clang-19 -I include
""",
)
@click.argument("source", metavar="FILE.c", type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(dir_okay=False, readable=False),
    help="The object file; FILE.o beside the source by default.",
)
@click.option(
    "--compiler",
    metavar="NAME",
    shell_complete=complete.compilers,
    help="clang, clang-19, ziglang, …; the first that is here by default.",
)
@click.option(
    "-I",
    "--include",
    metavar="FOLDER",
    multiple=True,
    type=click.Path(file_okay=False, readable=False),
    help="Look for headers here, too. May be repeated.",
)
@click.option(
    "-D",
    "--define",
    metavar="MACRO[=VALUE]",
    multiple=True,
    help="Define a macro. May be repeated.",
)
@pass_settings
def command(
    settings: Settings,
    source: str,
    output: str | None,
    compiler: str | None,
    include: tuple[str, ...],
    define: tuple[str, ...],
) -> None:
    """Compile C into an object file, with clang or with ziglang.

    xdpkit.h is found without further ado; no other header is needed.
    """
    from xdpkit.compiler import compile
    from xdpkit.obj import read

    compiled = compile(source, output, compiler=compiler, include=include, defines=define)
    if compiled.warnings:
        click.echo(printable(compiled.warnings, keep="\n\t"), err=True, nl=False)
    # What xdpkit cannot read, it had better refuse at once.
    obj = read(compiled.path)
    if settings.json:
        emit_json(
            {
                "output": str(compiled.path),
                "compiler": compiled.compiler.name,
                "warnings": compiled.warnings,
                "programs": list(obj.programs),
                "maps": list(obj.maps),
            },
            pretty=settings.pretty,
        )
        return
    contents = f"{counted(len(obj.programs), 'program')}, {counted(len(obj.maps), 'map')}"
    emit([printable(f"built {compiled.path} with {compiled.compiler.name}: {contents}")])
