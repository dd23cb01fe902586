# SPDX-License-Identifier: Apache-2.0
"""Commands that are told to people: a shell takes them as they are shown."""

from __future__ import annotations

import shlex


def quoted(word: str) -> str:
    """Return a word for a shell.

    What a terminal might obey is escaped as bash, zsh and ksh do (``$'a\\x1b'``): whoever shows the
    command would have to escape it otherwise, and it would mean another word then.
    """
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(char: str) -> str:
    if char.isprintable() and char not in "\\'":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def requoted(command: str) -> str:
    """Return a command, of words that :mod:`shlex` has quoted, as :func:`quoted` quotes them."""
    return " ".join(map(quoted, shlex.split(command)))
