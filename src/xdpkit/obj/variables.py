# SPDX-License-Identifier: Apache-2.0
"""Global variables: read, and set before a load, by name."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from copy import copy
from dataclasses import dataclass

from xdpkit.btf import Btf, types
from xdpkit.btf.types import Kind, VarLinkage
from xdpkit.errors import UsageError
from xdpkit.obj import elf
from xdpkit.obj.elf import Image, Section


@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable.

    Attributes:
        name: as in the source; a function's static variable is ``function.name``.
        section: where it lies, which is also its map's name (``.rodata``).
        offset, size: bytes within the section.
        type_id: its type in the object's BTF, 0 where it is not known.
    """

    name: str
    section: str
    offset: int
    size: int
    type_id: int

    @property
    def is_constant(self) -> bool:
        """Whether nothing can change it after the load."""
        return self.section.startswith(".rodata")


class Variables(MutableMapping[str, object]):
    """The global variables of an object, by name.

    Values are Python's: ints, bools, dicts for structs, lists for arrays, bytes for arrays of char
    (see :mod:`xdpkit.btf.values`); bytes for a variable whose type is not known. Setting one checks
    that it fits. The number of variables is fixed: they cannot be added or deleted.
    """

    def __init__(self, image: Image, btf: Btf | None, sections: dict[int, str]) -> None:
        self._image = image
        self._btf = btf
        self._sections = {name: image.sections[index] for index, name in sections.items()}
        self._contents: dict[str, bytearray] = {}
        self._index: dict[str, Variable] | None = None

    def describe(self, name: str) -> Variable:
        """Return where a variable lies and of what type it is.

        Raises:
            UsageError: there is no such variable.
        """
        found = self._by_name().get(name)
        if found is None:
            known = ", ".join(sorted(self._by_name())) or "none"
            raise UsageError(
                f"find variable {name!r} in {self._image.file}",
                cause=f"it has these global variables: {known}",
            )
        return found

    def changed(self) -> dict[str, object]:
        """Return the variables that do not have the values that they have in the file."""
        return {
            name: self[name]
            for name, variable in self._by_name().items()
            if variable.section in self._contents and not self._is_as_in_file(variable)
        }

    def _is_as_in_file(self, variable: Variable) -> bool:
        section = self._sections[variable.section]
        where = slice(variable.offset, variable.offset + variable.size)
        original = (section.data or bytes(section.size))[where]
        return bytes(self._contents[variable.section][where]) == original

    def __getitem__(self, name: str) -> object:
        variable = self._by_name()[name]
        contents = self._contents.get(variable.section)
        if contents is None:
            section = self._sections[variable.section]
            data = section.data or bytes(section.size)
        else:
            data = bytes(contents)
        data = data[variable.offset : variable.offset + variable.size]
        if self._btf is None or not variable.type_id:
            return data
        from xdpkit.btf.values import decode_value

        return decode_value(self._btf, variable.type_id, data)

    def __setitem__(self, name: str, value: object) -> None:
        variable = self.describe(name)
        encoded = self._encode(variable, value)
        contents = self._contents.get(variable.section)
        if contents is None:
            contents = self._contents[variable.section] = bytearray(self.data(variable.section))
        contents[variable.offset : variable.offset + variable.size] = encoded

    def __delitem__(self, name: str) -> None:
        raise UsageError(f"delete variable {name!r}", cause="a variable can be set, not removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def data(self, section: str) -> bytes:
        """Return a section's bytes, with the variables as they are set now."""
        contents = self._contents.get(section)
        if contents is not None:
            return bytes(contents)
        return self._sections[section].data or bytes(self._sections[section].size)

    def snapshot(self) -> Variables:
        """Return the variables as they are set now; setting them here changes nothing there."""
        found = copy(self)
        found._contents = {name: bytearray(data) for name, data in self._contents.items()}
        return found

    def _encode(self, variable: Variable, value: object) -> bytes:
        if isinstance(value, bytes | bytearray) and len(value) == variable.size:
            return bytes(value)
        if self._btf is not None and variable.type_id:
            from xdpkit.btf.values import encode_value

            try:
                return encode_value(self._btf, variable.type_id, value)
            except UsageError as error:
                raise UsageError(
                    f"set variable {variable.name} to {value!r}", cause=error.cause
                ) from None
        raise UsageError(
            f"set variable {variable.name} to {value!r}",
            cause=f"its type is not known; give {variable.size} bytes",
        )

    def _by_name(self) -> dict[str, Variable]:
        if self._index is None:
            self._index = {}
            for section in self._sections.values():
                for variable in self._in_section(section):
                    self._index.setdefault(variable.name, variable)
        return self._index

    def _in_section(self, section: Section) -> Iterator[Variable]:
        btf = self._btf
        datasec_ids = btf.find(section.name, Kind.DATASEC) if btf else ()
        symbols = {
            symbol.name: symbol
            for symbol in self._image.defined(elf.STT_OBJECT)
            if symbol.section == section.index
        }
        if btf and datasec_ids:
            for entry, variable, offset in section_variables(btf, datasec_ids[0], self._image):
                # A flexible array's initial values are not counted in its type.
                is_exact = btf.sizeof(variable.type_id) == entry.size
                type_id = variable.type_id if is_exact else 0
                yield Variable(variable.name, section.name, offset, entry.size, type_id)
                symbols.pop(variable.name, None)
        for symbol in symbols.values():
            if symbol.value + symbol.size <= section.size and symbol.size:
                yield Variable(symbol.name, section.name, symbol.value, symbol.size, 0)


def section_variables(
    btf: Btf, datasec_id: int, image: Image
) -> list[tuple[types.SectionVar, types.Var, int]]:
    """Return (entry, variable, offset) of what BTF says is in a section, by offset.

    clang leaves the offsets of global variables to be filled in from the symbols.

    Raises:
        ObjectFormatError: an entry is not a variable, or is not within the section.
    """
    datasec = btf[datasec_id]
    assert isinstance(datasec, types.Datasec)
    section = image.by_name.get(datasec.name)
    found = []
    for entry in datasec.vars:
        variable = btf[entry.type_id]
        if not isinstance(variable, types.Var):
            raise btf.error(f"type {entry.type_id} in {datasec.name} is not a variable", datasec_id)
        offset = entry.offset
        if datasec.size == 0 and variable.linkage == VarLinkage.GLOBAL:
            symbol = image.globals.get(variable.name)
            if symbol is None:
                raise btf.error(f"there is no symbol for variable {variable.name}", datasec_id)
            offset = symbol.value
        if section is not None and offset + entry.size > section.size:
            raise image.error(
                f"variable {variable.name} is not within the section", section, offset
            )
        found.append((entry, variable, offset))
    return sorted(found, key=lambda item: item[2])
