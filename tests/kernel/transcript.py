# SPDX-License-Identifier: Apache-2.0
"""Commands and what they print, as a text that is the same in each run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from tests.kernel.net import Veth
from tests.kernel.process import Done, shipped, xdpkit_command

# The tests have a mount namespace of their own, which the commands say.
_COMPANY = re.compile(r"^xdpkit: \S+ is in a mount namespace of its own: .*\n", re.MULTILINE)

# Whoever lists the links at this moment, another test for one, holds each for an instant.
_HOLDERS = re.compile(r"^  held by .*\n", re.MULTILINE)

_VARIABLE = (
    (r"\b[0-9a-f]{16}\b", "TAG"),
    (r"\bsha256 [0-9a-f]{12}\b", "sha256 DIGEST"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+", "DATE"),
    (r"\bin \d[\w ]* \(at [^)]+\)", "in TIME (at CLOCK)"),
    (r"  [^ ]+ (?:h|min)( \d+ \w+)? to confirm", "  TIME to confirm"),
    (r"/\d+-\d+(/link)?\b", r"/HOOK\1"),
    (r"\bxdpkit \d+\.\d+\.\d+\S*", "xdpkit VERSION"),
    (r"(\w) \(\d+\)", r"\1 (MAP)"),
    (r" {2,}", "  "),
)
_IDS = (
    (r"(?<=\bprogram )(\d+)\b", "P"),
    (r"(?<=\bid )(\d+)$", "P"),
    (r"(?<=--expect )(\d+)\b", "P"),
    (r"(?<=expected=)(\d+)\b", "P"),
    # In the tables of status and of counters.
    (r"\bnative  (?:(?:others|none|\d+(?:-\d+)?(?:, \d+(?:-\d+)?)*)  )?(\d+)  [a-z_]+  TAG", "P"),
    (r"^[a-z_]+  (\d+)  (?:[-\d, a-z–]+  )?\d+  \d+  \d+", "P"),
    (r"(?<=\blink )(\d+)\b", "L"),
    (r"(?<=\blink detach id )(\d+)\b", "L"),
)


def messages_of(done: Done) -> str:
    """Return what a command said, without what it says of the tests' own mount namespace."""
    return _COMPANY.sub("", done.messages)


class Transcript:
    """Runs commands on an interface, and keeps what they print.

    Ids become P1, P2 … for programs and L1 … for links, in the order in which they turn up.
    """

    def __init__(self, veth: Veth, pin_root: str) -> None:
        self._veth = veth
        self._pin_root = pin_root
        self._text = ""

    def run(self, verb: str, *args: object, iface: bool = True, by: Sequence[str] = ()) -> Done:
        """Run ``xdpkit VERB IFACE ARGS``."""
        words: list[object] = ["--pin-root", self._pin_root]
        if not by:
            words = ["-n", self._veth.netns, *words]
        if iface:
            words.append(self._veth.name)
        done = xdpkit_command(*verb.split(), *words, *args, by=by)
        done = replace(done, messages=messages_of(done))
        shown = [*verb.split(), *([self._veth.name] if iface else []), *map(str, args)]
        self._text += f"$ xdpkit {shlex.join(shown)}\n{done.output}{done.messages}"
        if done.status:
            self._text += f"(exit status {done.status})\n"
        return done

    @property
    def text(self) -> str:
        """What was run and printed until now."""
        text = _HOLDERS.sub("", self._text)
        where = f"-n {self._veth.netns} --pin-root {self._pin_root} {self._veth.name}"
        for found, name in (
            (where, "v0"),
            (f"{shipped('demo.o').parent}/", ""),
            (self._pin_root, "PINS"),
            (self._veth.netns, "NETNS"),
            (self._veth.name, "v0"),
        ):
            text = text.replace(found, name)
        for pattern, replacement in _VARIABLE:
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        return self._numbered(text)

    def _numbered(self, text: str) -> str:
        places = sorted(
            (match.start(1), match.end(1), kind, match[1])
            for pattern, kind in _IDS
            for match in re.finditer(pattern, text, flags=re.MULTILINE)
        )
        names: dict[tuple[str, str], str] = {}
        for _, _, kind, number in places:
            known = sum(1 for each, _ in names if each == kind)
            names.setdefault((kind, number), f"{kind}{known + 1}")
        for start, end, kind, number in reversed(places):
            text = f"{text[:start]}{names[kind, number]}{text[end:]}"
        return text
