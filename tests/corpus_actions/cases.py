# SPDX-License-Identifier: Apache-2.0
"""The programs with known answers: what each can return is in the comment before it."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import xdpkit
from tests.corpus import build
from xdpkit import XdpAction
from xdpkit.obj.spec import Object

FOLDER = Path(__file__).parent

_PROGRAM = re.compile(
    r"^// actions: (?P<actions>.+)\n(?:// needs: (?P<needs>.+)\n)?"
    r"SEC\(\"[^\"]+\"\) int (?P<name>\w+)\(",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A program and its answer.

    Attributes:
        source: the file. name: the program in it.
        actions: what it can return, unsigned; None: any value.
        needs: the first version of Linux that takes it.
    """

    source: Path
    name: str
    actions: frozenset[int] | None
    needs: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.source.stem}.{self.name}"


def cases() -> list[Case]:
    """Return all programs, in the order of the files."""
    found = []
    for source in sorted(FOLDER.glob("*.c")):
        text = source.read_text()
        for match in _PROGRAM.finditer(text):
            words = match["actions"].split()
            actions = None if words == ["any"] else frozenset(map(_action, words))
            found.append(Case(source, match["name"], actions, _version(match["needs"])))
    return found


def _version(needs: str | None) -> tuple[int, int]:
    """Return the version that ``Linux 5.18`` names."""
    major, _, minor = (needs or "Linux 0.0").removeprefix("Linux ").partition(".")
    return int(major), int(minor)


def running_kernel() -> tuple[int, int]:
    """Return the version of the kernel that runs this."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int(re.match(r"\d+", minor)[0])  # type: ignore[index]


def _action(word: str) -> int:
    return int(word) if word.isdigit() else XdpAction[word]


def compilers() -> list[build.Compiler]:
    """Return the oldest and the newest clang, and zig."""
    clangs = [compiler for compiler in build.compilers() if compiler.family == "clang"]
    others = [compiler for compiler in build.compilers() if compiler.family == "zig"]
    return [*dict.fromkeys([*clangs[:1], *clangs[-1:]]), *others]


@functools.cache
def path(source: Path, compiler: build.Compiler) -> Path:
    """Return the object of a source, compiled anew if the header has changed."""
    header = hashlib.sha256((FOLDER / "actions.h").read_bytes()).hexdigest()[:16]
    return build.build(source, compiler, flags=(f"-DHEADER={header}",)).path


def read(source: Path, compiler: build.Compiler) -> Object:
    """Return a source's object, read."""
    return xdpkit.read(path(source, compiler))
