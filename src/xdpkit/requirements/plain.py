# SPDX-License-Identifier: Apache-2.0
"""Plain data that another version of xdpkit wrote, read with care."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import TypeVar

from xdpkit.errors import UsageError

_EnumT = TypeVar("_EnumT", bound=enum.Enum)


class Document:
    """A JSON object. Each value is checked as it is taken out; keys that nobody asks for stay.

    All methods raise UsageError where the value is not there, or is another kind of thing.
    """

    def __init__(self, data: object, place: str) -> None:
        """Take a value that should be a JSON object; ``place`` is what it is, for errors."""
        self._place = place
        if not isinstance(data, dict):
            raise self.error("a JSON object is expected")
        self._data: dict[object, object] = data

    def error(self, cause: str) -> UsageError:
        """Return the error that says what is wrong with it."""
        return UsageError(f"read {self._place}", cause=cause)

    def text(self, key: str) -> str:
        """Return text."""
        value = self._data.get(key)
        if not isinstance(value, str):
            raise self.error(f"{key}: text is expected")
        return value

    def text_or_none(self, key: str) -> str | None:
        """Return text, None for null and where it is absent."""
        return None if self._data.get(key) is None else self.text(key)

    def number(self, key: str) -> int:
        """Return an integer."""
        value = self._data.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"{key}: a number is expected")
        return value

    def number_or_none(self, key: str) -> int | None:
        """Return an integer, None for null and where it is absent."""
        return None if self._data.get(key) is None else self.number(key)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._data.get(key)
        if not isinstance(value, bool):
            raise self.error(f"{key}: true or false is expected")
        return value

    def choice(self, key: str, choices: type[_EnumT]) -> _EnumT:
        """Return a member of an enumeration, by its value."""
        value = self.text(key)
        for member in choices:
            if member.value == value:
                return member
        raise self.error(f"{key}: {value[:80]!r} is not known")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"{key}: texts are expected")
        return tuple(str(value) for value in values)

    def each(self, key: str) -> Iterator[Document]:
        """Yield the objects of a list."""
        for at, value in enumerate(self.items(key)):
            yield Document(value, f"{self._place}, {key}[{at}]")

    def mapping(self, key: str) -> dict[str, object]:
        """Return an object as it is; its keys are text, as in all JSON."""
        value = self._data.get(key)
        if not isinstance(value, dict):
            raise self.error(f"{key}: a JSON object is expected")
        return {str(name): item for name, item in value.items()}

    def items(self, key: str) -> list[object]:
        """Return a list as it is."""
        value = self._data.get(key)
        if not isinstance(value, list):
            raise self.error(f"{key}: a JSON array is expected")
        return value
