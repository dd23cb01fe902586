# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: its public names, what importing it costs, what it carries."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest
from elftools.elf.elffile import ELFFile

import xdpkit

PUBLIC = [name for name in xdpkit.__all__ if name != "__version__"]


def test_importing_the_package_imports_nothing_else() -> None:
    script = (
        "import sys; before = set(sys.modules); import xdpkit; "
        "print([m for m in set(sys.modules) - before "
        "if m.partition('.')[0] not in sys.stdlib_module_names])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "['xdpkit']\n"


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(xdpkit, name)
    assert value.__name__.removeprefix("xdpkit.") == name
    assert inspect.getdoc(value)


def test_dir_lists_the_public_names() -> None:
    assert set(dir(xdpkit)) >= set(PUBLIC)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'xdpkit' has no attribute 'nothing'"):
        _ = xdpkit.nothing


def test_the_public_api_is_as_agreed(golden: Callable[[str, str], None]) -> None:
    lines = [line for name in PUBLIC for line in describe(name, getattr(xdpkit, name))]
    golden("public-api.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "name", ["demo", "events", "faulty", "monitor", "pass", "router", "switch"]
)
def test_the_installed_package_carries_compiled_programs(name: str) -> None:
    data = (files("xdpkit") / "_bpf" / f"{name}.o").read_bytes()
    elf = ELFFile(io.BytesIO(data))
    assert elf["e_machine"] == "EM_BPF"
    assert elf.get_section_by_name(".BTF") is not None


def test_the_installed_package_carries_its_header_and_type_marker() -> None:
    assert (files("xdpkit") / "include" / "xdpkit.h").is_file()
    assert (files("xdpkit") / "py.typed").is_file()


def describe(name: str, value: object) -> Iterator[str]:
    """Yield the lines that a caller could come to depend on."""
    if inspect.ismodule(value):
        for member in value.__all__:
            for line in describe(member, getattr(value, member)):
                yield line if line.startswith(" ") else f"{name}.{line}"
        return
    if not isinstance(value, type):
        yield signature(name, value)
        return
    yield f"class {name}({', '.join(base.__name__ for base in value.__bases__)})"
    if issubclass(value, enum.Enum):
        yield from (f"    {member} = {value[member].value}" for member in value.__members__)
        return
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    yield from (f"    {field.name}: {field.type}" for field in fields)
    members = set(vars(value)) - {field.name for field in fields}
    for base in value.__mro__:
        # What a public class has from one that is not.
        if base.__module__.startswith("xdpkit.") and base.__name__ not in PUBLIC:
            members |= {member for member in vars(base) if member != "__init__"}
    for member in sorted(members):
        held = inspect.getattr_static(value, member)
        if member.startswith("_") and (member != "__init__" or fields):
            continue
        if isinstance(held, property) and held.fget is not None:
            yield f"    {member} -> {inspect.signature(held.fget).return_annotation}"
        elif isinstance(held, classmethod | staticmethod):
            yield f"    {signature(member, held.__func__)}"
        elif inspect.isfunction(held):
            yield f"    {signature(member, held)}"


def signature(name: str, value: object) -> str:
    assert callable(value)
    # A sentinel among the defaults shows its address.
    return name + re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
