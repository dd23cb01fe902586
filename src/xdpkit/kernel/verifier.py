# SPDX-License-Identifier: Apache-2.0
"""Reading the verifier's log: what it complains about, where, and what to do.

The log is a trace of a simulation, up to millions of lines; the complaint is at its end. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LINES = 12
MAX_LINE = 160
_TAIL = 1 << 18

_STATISTICS = re.compile(
    r"processed \d+ insns|verification time \d+|stack depth \d+|max_states|insns processed"
)
_INSTRUCTION = re.compile(r"\d+: \([0-9a-f]{2}\) ")
_STATE = re.compile(
    r"(?:\d+: )?(?:R\d+(?:_\w+)?=|frame\d+: |safe$)|from \d+ to \d+|\d+: safe|"
    r"mark_precise: |parent |last_idx |regs=|; R\d|caller:|callee:|"
    r"returning from callee|to caller at \d+|func#\d+ @|Func#\d+ "
)
_SOURCE = re.compile(r"; (?!R\d)\S")
_STATE_COMMENT = re.compile(r"\s*; (?:R\d+\S*=|frame\d+: ).*$")


@dataclass(frozen=True, slots=True)
class Complaint:
    """The end of a verifier's log, made readable.

    Attributes:
        message: the verifier's own last words, one line; None when the log has none.
        excerpt: the lines that lead to it, oldest first: source, instructions, message.
        remedy: what to do about it, None unless it is sure.
    """

    message: str | None
    excerpt: tuple[str, ...]
    remedy: str | None


def read_log(log: str) -> Complaint:
    """Return what a verifier's log complains about."""
    lines = [line.rstrip() for line in log[-_TAIL:].splitlines()]
    while lines and (not lines[-1].strip() or _STATISTICS.match(lines[-1])):
        lines.pop()
    if not lines:
        return Complaint(None, (), None)
    message = lines[-1].strip()
    return Complaint(_shortened(message), _excerpt(lines), _remedy(lines))


# The checks that bpf_token_capable(…, CAP_PERFMON) lifts, in kernel/bpf/verifier.c.
_UNPRIVILEGED = re.compile(
    r"pointer comparison prohibited|pointer -= pointer prohibited|pointer arithmetic"
    r"|leak(?:s|ing)? (?:addr|pointer)"
)


def is_for_lack_of_perfmon(message: str) -> bool:
    """Whether the complaint is one that processes without CAP_PERFMON hear for good programs.

    With the capability the verifier says some of these things, too, and means the program.
    """
    return _UNPRIVILEGED.search(message) is not None


def _excerpt(lines: list[str]) -> tuple[str, ...]:
    kept: list[str] = []
    has_source = False
    has_instruction = False
    for line in reversed(lines):
        if _SOURCE.match(line):
            kept.append(line)
            if has_instruction:
                has_source = True
        elif _INSTRUCTION.match(line):
            # Of the instructions before the last source line that was found, none is telling.
            if has_source:
                break
            has_instruction = True
            kept.append(_STATE_COMMENT.sub("", line))
        elif _STATE.match(line):
            continue
        elif has_instruction:
            break
        else:
            kept.append(line)
        if len(kept) >= MAX_LINES:
            break
    return tuple(_shortened(line) for line in reversed(kept))


def _shortened(line: str) -> str:
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"


# Complaints whose remedy is sure, by what the verifier (kernel/bpf/verifier.c) says.
_REMEDIES = (
    (
        re.compile(r"invalid access to packet|offset is outside of the packet"),
        "compare the end of the access with ctx->data_end before it",
    ),
    (
        re.compile(r"invalid mem access '(?:map_value|mem|sock\w*|ptr_|alloc_mem)\w*_or_null"),
        "compare the pointer with NULL before using it",
    ),
    (
        re.compile(r"Possibly NULL pointer passed"),
        "compare the pointer with NULL before passing it",
    ),
    (
        re.compile(r"cannot call GPL[- ]\w+ function from non-GPL compatible program"),
        'declare a GPL-compatible license: char LICENSE[] SEC("license") = "Dual BSD/GPL";',
    ),
    (
        re.compile(r"metadata kfuncs require device-bound program"),
        "load it for its device: load(..., ifindex=...)",
    ),
    (
        re.compile(r"R0 !read_ok"),
        "return a value on every path",
    ),
    (
        re.compile(r"Unreleased reference"),
        "release the reference on every path",
    ),
)


def _remedy(lines: list[str]) -> str | None:
    end = "\n".join(lines[-3:])
    return next((remedy for pattern, remedy in _REMEDIES if pattern.search(end)), None)
