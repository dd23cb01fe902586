# SPDX-License-Identifier: Apache-2.0
"""Values of variables, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from xdpkit.cli.render import printable

_MAX_TEXT = 64


def format_value(value: object, *, limit: int = _MAX_TEXT) -> str:
    """Return a value as a C programmer would write it, shortened to ``limit`` characters."""
    text = _format(value, limit)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _format(value: object, limit: int) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            text = c_string(value)
            return f'"{printable(text)}"' if text is not None else value[:limit].hex(" ")
        case Mapping():
            members = (f"{name} = {_format(member, limit)}" for name, member in value.items())
            return _braces(members, limit)
        case list():
            return _braces((_format(element, limit) for element in value), limit)
    return str(value)


def _braces(parts: Iterable[str], limit: int) -> str:
    """Join parts until there is more text than will be shown."""
    kept: list[str] = []
    length = 0
    for part in parts:
        kept.append(part)
        length += len(part) + 2
        if length > limit:
            break
    return f"{{{', '.join(kept)}}}"


def c_string(value: bytes) -> str | None:
    """Return the text that an array of char holds, None if what is there is no text."""
    text, _, rest = value.partition(b"\0")
    if rest.strip(b"\0"):
        return None
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def plain(value: object) -> object:
    """Return a value as JSON can hold it: bytes become ``{"hex": …, "text": …}``."""
    match value:
        case bytes():
            return {"hex": value.hex(), "text": c_string(value)}
        case Mapping():
            return {name: plain(member) for name, member in value.items()}
        case list():
            return [plain(element) for element in value]
        case float() if not math.isfinite(value):
            return str(value)
    return value
