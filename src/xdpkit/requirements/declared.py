# SPDX-License-Identifier: Apache-2.0
"""What an object declares in its section ``.xdpkit``: promises of its author, as text.

The section is a sequence of texts, each ended by NUL; empty ones are padding::

    1 needs:action-tx
    1 optional:rx-hash firewall

The number is the version of the record. A program's name may follow; without one the declaration is
about every program of the object. ``XDPKIT_NEEDS`` and its sisters in xdpkit.h write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpkit.capabilities import capability
from xdpkit.errors import ObjectFormatError, UsageError
from xdpkit.requirements.requirement import Requirement

if TYPE_CHECKING:
    from xdpkit.obj import ProgramSpec

SECTION = ".xdpkit"
VERSION = "1"

_MAX_RECORD = 256
_MAX_RECORDS = 1024
# Findings about numbers, and what negotiation alone works out, are nothing that code can need.
_NOT_DECLARABLE = (
    "mtu",
    "rx-queues",
    "action-any",
    "redirect-broadcast-frags",
    "redirect-target",
    "redirect-target-frags",
)
_NOT_DECLARABLE_FAMILIES = ("action-code", "precondition", "context-field")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One record; ``program`` is None for one that is about every program of the object."""

    capability: str
    optional: bool
    program: str | None
    offset: int


def declared(spec: ProgramSpec) -> tuple[Requirement, ...]:
    """Return what an object declares about a program, in its order, each capability once.

    Where it both needs something and calls it optional, it needs it.

    Raises:
        ObjectFormatError: the section is malformed, or names what does not exist.
    """
    image, programs = spec.object.code.image, spec.object.programs
    section = image.by_name.get(SECTION)
    if section is None:
        return ()
    found: dict[str, bool] = {}
    for declaration in parse(section.data, file=image.file):
        if declaration.program is not None and declaration.program not in programs:
            raise image.error(
                f"{declaration.program[:80]!r} is no program", section, declaration.offset
            )
        if declaration.program in (None, spec.name):
            name = declaration.capability
            found[name] = found.get(name, True) and declaration.optional
    return tuple(
        Requirement(name, optional=optional, declared=True) for name, optional in found.items()
    )


def parse(data: bytes, *, file: str | None = None) -> tuple[Declaration, ...]:
    """Return the declarations in the contents of a section.

    Raises:
        ObjectFormatError: see :func:`declared`.
    """
    if data and data[-1]:
        raise ObjectFormatError(
            "the last record is not ended", file=file, section=SECTION, offset=len(data)
        )
    found: list[Declaration] = []
    offset = 0
    for raw in data.split(b"\0"):
        if raw:
            if len(found) >= _MAX_RECORDS:
                raise ObjectFormatError(
                    f"more than {_MAX_RECORDS} declarations",
                    file=file,
                    section=SECTION,
                    offset=offset,
                )
            found.append(_record(raw, file, offset))
        offset += len(raw) + 1
    return tuple(found)


def _record(raw: bytes, file: str | None, offset: int) -> Declaration:
    def error(cause: str, remedy: str | None = None) -> ObjectFormatError:
        return ObjectFormatError(cause, file=file, section=SECTION, offset=offset, remedy=remedy)

    text = raw[:_MAX_RECORD].decode("ascii", "backslashreplace")
    version, _, declaration = text.partition(" ")
    kind, colon, rest = declaration.partition(":")
    name, named, program = rest.partition(" ")
    if len(raw) > _MAX_RECORD or not version.isdigit() or not colon or (named and not program):
        raise error(f"{text[:40]!r} is no declaration")
    if version != VERSION:
        raise error(
            f"a declaration of version {version[:10]}", f"this release reads version {VERSION}"
        )
    if kind not in ("needs", "optional"):
        raise error(f"{kind[:40]!r} is neither 'needs' nor 'optional'")
    try:
        capability(name)
    except UsageError as unknown:
        raise error(f"{name[:80]!r}: {unknown.cause}", unknown.remedy) from None
    if name in _NOT_DECLARABLE or name.partition(":")[0] in _NOT_DECLARABLE_FAMILIES:
        raise error(f"{name!r} is nothing that a program can declare")
    return Declaration(name, kind == "optional", program or None, offset)
