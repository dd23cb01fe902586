# SPDX-License-Identifier: Apache-2.0
"""``xdpkit inspect``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.description import (
    ExternDescription,
    MapDescription,
    ObjectDescription,
    ProgramDescription,
    VariableDescription,
    describe,
    type_definitions,
)
from xdpkit.cli.listing import ListedFunction, format_listing, list_program
from xdpkit.cli.needs import list_needs, needs_of_all
from xdpkit.cli.options import choose_program, object_argument
from xdpkit.cli.render import Column, counted, emit, emit_json, printable, table, width
from xdpkit.cli.values import format_value, plain
from xdpkit.requirements import Requirements

_INDENT = "  "


@subcommand(
    "inspect",
    examples="""
xdpkit inspect fw.o
xdpkit inspect fw.o firewall --disassemble
xdpkit inspect -p fw.o | jq '.maps[].name'
""",
)
@object_argument
@click.argument(
    "program_name", metavar="[PROGRAM]", required=False, shell_complete=complete.programs
)
@click.option(
    "--disassemble", is_flag=True, help="Add the instructions, with the source lines they are from."
)
@pass_settings
def command(
    settings: Settings, object_path: str, program_name: str | None, disassemble: bool
) -> None:
    """Show what is in an object file: programs, maps, variables, and what each program needs.

    Nothing is loaded and no privilege is needed. With PROGRAM, show that program only.
    """
    from xdpkit.obj import read

    obj = read(object_path)
    specs = list(obj.programs.values())
    if program_name is not None:
        specs = [choose_program(obj, program_name, what=f"inspect {object_path}")]
    linked = [(spec, spec.link()) for spec in specs]
    found = describe(obj, linked)
    needs = needs_of_all(specs)
    listings = {spec.name: list_program(obj, code) for spec, code in linked} if disassemble else {}
    if settings.json:
        emit_json(_as_json(found, listings, needs), pretty=settings.pretty)
        return
    emit(_summary(found))
    if program_name is None:
        emit(_tables(found, type_definitions(obj)))
    else:
        emit(_programs(found.programs))
    for each in needs.values():
        emit(list_needs(each))
    for name, functions in listings.items():
        emit(["", f"Disassembly of {printable(name)}"])
        emit(printable(line) for line in format_listing(functions))


def _as_json(
    found: ObjectDescription,
    listings: dict[str, list[ListedFunction]],
    needs: dict[str, Requirements],
) -> dict[str, object]:
    data = dataclasses.asdict(found)
    for variable in data["variables"]:
        variable["value"] = plain(variable["value"])
    for program in data["programs"]:
        if program["name"] in needs:
            program |= needs[program["name"]].to_dict()
        if program["name"] in listings:
            program["functions"] = [
                dataclasses.asdict(function) for function in listings[program["name"]]
            ]
    return data


def _summary(found: ObjectDescription) -> Iterator[str]:
    licence = f"licence {found.license}" if found.license else "no licence"
    facts = [licence, f"{found.byteorder}-endian"]
    if found.version:
        facts.append(f"version {found.version}")
    if not found.btf:
        facts.append("no BTF")
    yield printable(f"{found.path}: {', '.join(facts)}")


def _tables(found: ObjectDescription, definitions: list[str]) -> Iterator[str]:
    yield from _programs(found.programs)
    yield from _maps(found.maps)
    yield from _variables(found.variables)
    yield from _externs(found.kernel_symbols)
    if definitions:
        yield from ("", "Types")
        for definition in definitions:
            for line in definition.splitlines():
                yield f"{_INDENT}{printable(line)}"
    if found.skipped_sections:
        yield from ("", "Sections left alone, because they hold programs of other kinds")
        for name in found.skipped_sections:
            yield f"{_INDENT}{printable(name)}"


def _programs(programs: list[ProgramDescription]) -> Iterator[str]:
    if not programs:
        yield from ("", "no programs")
        return
    all_xdp = all(program.type == "xdp" for program in programs)
    yield from ("", counted(len(programs), "XDP program" if all_xdp else "program"))
    yield from _table(
        [
            Column("name"),
            Column("section"),
            Column("type"),
            Column("insns", right=True),
            Column("flags", wraps=True),
            Column("maps", wraps=True),
            Column("calls", wraps=True),
            Column("needs of the kernel", wraps=True),
        ],
        [
            [
                program.name,
                program.section,
                "" if all_xdp else program.type,
                f"{program.instructions:,}",
                " ".join(program.flags),
                " ".join(program.maps),
                " ".join(program.subprograms),
                " ".join(program.kernel_symbols),
            ]
            for program in programs
        ],
    )


def _maps(maps: list[MapDescription]) -> Iterator[str]:
    if not maps:
        return
    yield from ("", counted(len(maps), "map"))
    yield from _table(
        [
            Column("name"),
            Column("type"),
            Column("key (bytes)", wraps=True),
            Column("value (bytes)", wraps=True),
            Column("entries", right=True),
            Column("flags", wraps=True),
            Column("more", wraps=True),
        ],
        [
            [
                found.name,
                found.type,
                _sized(found.key_type, found.key_size),
                _sized(found.value_type or (found.data_section and "data"), found.value_size),
                f"{found.max_entries:,}" if found.max_entries else "",
                " ".join(found.flags),
                ", ".join(_more(found)),
            ]
            for found in maps
        ],
    )


def _sized(name: str | None, size: int) -> str:
    if name is None:
        return f"({size})" if size else ""
    return f"{name} ({size})"


def _entries(number: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def _more(found: MapDescription) -> Iterator[str]:
    if found.pinning != "none":
        yield "pinned by name"
    if found.numa_node is not None:
        yield f"NUMA node {found.numa_node}"
    if found.map_extra:
        yield f"map_extra {found.map_extra}"
    if found.inner is not None:
        inner = found.inner
        key = _sized(inner.key_type, inner.key_size)
        value = _sized(inner.value_type, inner.value_size)
        yield f"of {inner.type} {key} → {value}, {_entries(inner.max_entries)}"
    for slot, name in found.values.items():
        yield f"[{slot}] = {name}"


def _variables(variables: list[VariableDescription]) -> Iterator[str]:
    if not variables:
        return
    yield from ("", counted(len(variables), "variable"))
    yield from _table(
        [
            Column("declaration"),
            Column("section"),
            Column("value", wraps=True),
        ],
        [[found.declaration, found.section, _value(found)] for found in variables],
    )


def _value(found: VariableDescription) -> str:
    if found.enumerator is not None:
        return f"{found.enumerator} ({found.value})"
    return format_value(found.value)


def _externs(externs: list[ExternDescription]) -> Iterator[str]:
    if not externs:
        return
    yield from ("", f"{counted(len(externs), 'symbol')} of the kernel's")
    yield from _table(
        [Column("declaration", wraps=True), Column("kind"), Column("if absent")],
        [[found.declaration, found.kind, "0" if found.weak else "refused"] for found in externs],
    )


def _table(columns: list[Column], rows: list[list[str]]) -> Iterator[str]:
    return table(columns, rows, width=width(), indent=_INDENT)
