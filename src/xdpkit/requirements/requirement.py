# SPDX-License-Identifier: Apache-2.0
"""What a program needs, as values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from xdpkit.capabilities import phrase
from xdpkit.requirements.plain import Document

if TYPE_CHECKING:
    from xdpkit.capabilities import CapabilityInfo


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The place in a program that needs something.

    Attributes:
        program: the program's name.
        slot: the instruction, in 8-byte slots from the start of the linked code.
        function: the function that the instruction is in.
        source: "fw.c:41", None where the object has no line information.
    """

    program: str
    slot: int
    function: str
    source: str | None = None

    def __str__(self) -> str:
        return self.source or f"{self.function}, instruction {self.slot}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that a program needs.

    Attributes:
        capability: its name, see :data:`xdpkit.capabilities.CAPABILITIES`.
        origins: every place that needs it, in the order of the instructions; empty where it is
            not an instruction that does (frags: a flag; a declaration).
        optional: the program does without where it is not offered.
        declared: the object declares it, in its section ``.xdpkit``.
        detail: what words can add: "into tx_ports", "from map limits", "" for nothing.
        map: the map that is redirected into, None where it is none or not known.
        ifindex: the interface that is redirected to, where that is a constant.
    """

    capability: str
    origins: tuple[Origin, ...] = ()
    optional: bool = False
    declared: bool = False
    detail: str = ""
    map: str | None = None
    ifindex: int | None = None

    @property
    def origin(self) -> Origin | None:
        """The first place that needs it, if possible one with a line of source."""
        known = (origin for origin in self.origins if origin.source is not None)
        return next(known, self.origins[0] if self.origins else None)

    @property
    def label(self) -> str:
        """What is needed, in words: "action XDP_TX", "redirect into devmap tx_ports"."""
        return f"{phrase(self.capability)} {self.detail}".rstrip()

    def to_dict(self) -> dict[str, object]:
        """Return the requirement as plain data."""
        return {
            "capability": self.capability,
            "label": self.label,
            "optional": self.optional,
            "declared": self.declared,
            "detail": self.detail,
            "map": self.map,
            "ifindex": self.ifindex,
            "origins": [
                {
                    "program": origin.program,
                    "function": origin.function,
                    "slot": origin.slot,
                    "source": origin.source,
                }
                for origin in self.origins
            ],
        }

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return a requirement from its plain form; keys that are not known are ignored.

        Raises:
            UsageError: it is none.
        """
        given = Document(data, "a requirement")
        return cls(
            capability=given.text("capability"),
            origins=tuple(
                Origin(
                    program=origin.text("program"),
                    slot=origin.number("slot"),
                    function=origin.text("function"),
                    source=origin.text_or_none("source"),
                )
                for origin in given.each("origins")
            ),
            optional=given.flag("optional"),
            declared=given.flag("declared"),
            detail=given.text("detail"),
            map=given.text_or_none("map"),
            ifindex=given.number_or_none("ifindex"),
        )


@dataclass(frozen=True, slots=True)
class Requirements:
    """All that a program needs.

    Attributes:
        program: the program's name.
        items: in a fixed order: actions first, then as :data:`~xdpkit.capabilities.CAPABILITIES`
            has them.
        notes: what somebody should know who reads this ("declares action-tx, which was not found").
    """

    program: str
    items: tuple[Requirement, ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Requirement]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def of(self, capability: str) -> tuple[Requirement, ...]:
        """Return the requirements for a capability: several when it is redirects into maps."""
        return tuple(item for item in self.items if item.capability == capability)

    def needs(self, capability: str) -> bool:
        """Whether the program needs it, or would use it if it were there."""
        return any(item.capability == capability for item in self.items)

    def to_dict(self) -> dict[str, object]:
        """Return the requirements as plain data."""
        return {"needs": [item.to_dict() for item in self.items], "notes": list(self.notes)}


def in_order(
    items: Iterable[Requirement], known: Mapping[str, CapabilityInfo]
) -> tuple[Requirement, ...]:
    """Return requirements in the order of a table; families follow, by name.

    Return values that are no action stand with the actions.
    """
    rank = {name: at for at, name in enumerate(known)}
    families = {"action-code": rank.get("action-any", 0)}
    return tuple(
        sorted(
            items,
            key=lambda item: (
                rank.get(
                    item.capability,
                    families.get(item.capability.partition(":")[0], len(rank)),
                ),
                item.capability,
                item.map or "",
                item.ifindex or 0,
            ),
        )
    )
