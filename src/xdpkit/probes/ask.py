# SPDX-License-Identifier: Apache-2.0
"""Putting a question to the kernel, and reading a refusal as an answer or as none."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Literal

from xdpkit.errors import KernelRefused, MissingPrivilege, XdpkitError, errno_name
from xdpkit.isa import Instruction, asm, encode
from xdpkit.isa.opcodes import Register
from xdpkit.probes.finding import Answer
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewMap, NewProgram
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import MapType, ProgType

BYTEORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"

Reply = tuple[Answer, str]

# What a kernel says that does not know a command, an attribute, a flag or an instruction. Anything
# else (out of memory, no permission, interrupted) says nothing about the feature.
ABSENT = frozenset({errno.EINVAL, errno.E2BIG, errno.EACCES, errno.EOPNOTSUPP, bpf.ENOTSUPP})


def ask(question: str, attempt: Callable[[], object], *, absent: Collection[int] = ABSENT) -> Reply:
    """Try something; success is a yes, a refusal that means "I do not know this" is a no."""
    try:
        attempt()
    except KernelRefused as error:
        answer = Answer.NO if error.errno in absent else Answer.UNKNOWN
        return answer, f"{question}: {errno_name(error.errno or 0)}"
    except MissingPrivilege as error:
        return Answer.UNKNOWN, f"{question}: {error.cause}"
    except XdpkitError as error:
        return Answer.UNKNOWN, f"{question}: {error}"
    return Answer.YES, f"{question}: accepted"


def ask_against(
    question: str, attempt: Callable[[], object], control: Callable[[], object]
) -> Reply:
    """As :func:`ask`, but a no counts only if the same without the feature is accepted."""
    answer, evidence = ask(question, attempt)
    if answer is not Answer.NO:
        return answer, evidence
    plain, reason = ask("without it", control)
    if plain is Answer.YES:
        return answer, evidence
    return Answer.UNKNOWN, f"{evidence}; {reason}"


def machine_code(*instructions: Instruction) -> bytes:
    """Return instructions as this machine's code."""
    return encode(instructions, byteorder=BYTEORDER)


RETURN_0 = (asm.mov(Register.R0, 0), asm.exit())

TRIVIAL_PROGRAM = NewProgram(
    type=ProgType.SOCKET_FILTER, code=machine_code(*RETURN_0), license="GPL"
)

XDP_DROP_PROGRAM = NewProgram(
    type=ProgType.XDP, code=machine_code(asm.mov(Register.R0, 1), asm.exit()), license="GPL"
)

TRIVIAL_MAP = NewMap(type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1)


def load(new: NewProgram) -> Fd:
    return bpf.prog_load(new, what="load a probe program")


def create(new: NewMap) -> Fd:
    return bpf.map_create(new, what="create a probe map")


def ask_program(question: str, new: NewProgram, **control: object) -> Reply:
    """Ask whether a program loads; ``control`` are the fields that make it one any kernel takes."""
    plain = replace(new, **control) if control else TRIVIAL_PROGRAM  # type: ignore[arg-type]
    return ask_against(question, lambda: load(new).close(), lambda: load(plain).close())


def ask_map(question: str, new: NewMap, **control: object) -> Reply:
    """Ask whether a map can be made; ``control`` are the fields that make it a plain one."""
    plain = replace(new, **control) if control else TRIVIAL_MAP  # type: ignore[arg-type]
    return ask_against(question, lambda: create(new).close(), lambda: create(plain).close())
