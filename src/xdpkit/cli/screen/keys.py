# SPDX-License-Identifier: Apache-2.0
"""What a terminal sends when keys are pressed, as names of keys: ECMA-48, as xterm uses it."""

from __future__ import annotations

import re

_ESCAPE = 0x1B
_NAMES = {
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x03": "ctrl-c",
    b"\t": "tab",
    b"\x1a": "ctrl-z",
    b"\x1b": "escape",
}
_SEQUENCES = {
    b"A": "up",
    b"B": "down",
    b"C": "right",
    b"D": "left",
    b"H": "home",
    b"F": "end",
    b"P": "f1",
    b"1~": "home",
    b"4~": "end",
    b"5~": "page-up",
    b"6~": "page-down",
    b"7~": "home",
    b"8~": "end",
    b"11~": "f1",
}
# CSI with parameters, intermediate and final byte; SS3 with one character.
_SEQUENCE = re.compile(rb"\x1b(?:\[([0-?]*[ -/]*[@-~])|O([ -~]))")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?")


def names_of(data: bytes, *, is_all: bool) -> tuple[list[str], bytes]:
    """Return the keys that a terminal has sent, and what is left of a key that is not complete.

    Args:
        data: what it has sent, and was left before.
        is_all: whether nothing more comes for now, so that a lone escape is the key of that name.

    What has no name here is left out.
    """
    names: list[str] = []
    while data:
        if data[0] == _ESCAPE:
            found = _SEQUENCE.match(data)
            if found is not None:
                name = _SEQUENCES.get(found[1] or found[2])
                names += [name] if name is not None else []
                data = data[found.end() :]
                continue
            if _BEGUN.fullmatch(data) and not is_all:
                return names, data
        first, data = data[:1], data[1:]
        if first in _NAMES:
            names.append(_NAMES[first])
        elif b" " <= first <= b"~":
            names.append(first.decode("ascii"))
    return names, b""
