# SPDX-License-Identifier: Apache-2.0
"""The values that negotiation gives."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.requirements import Requirement
from xdpkit.requirements.plain import Document


class Policy(enum.Enum):
    """How much has to be known before a program is let in."""

    STRICT = "strict"
    """What is not known is refused."""
    DEFAULT = "default"
    """What is not known passes; what is certainly missing is refused."""
    REPORT = "report"
    """As by default, but nothing is stopped."""


class Outcome(enum.Enum):
    """What becomes of a requirement, or of a program."""

    ACCEPTED = "accepted"
    DEGRADED = "degraded"
    """It runs, but not all that it can do has an effect; the verdict says what."""
    REFUSED = "refused"


_BY_SEVERITY = (Outcome.REFUSED, Outcome.DEGRADED, Outcome.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Target:
    """An interface that packets are redirected to.

    Attributes:
        device: what is known about it.
        map: the map that holds it. ifindex: its index, where the program names it by that.
            With neither it stands for whatever the program redirects to.
        is_absent: there certainly is no such interface: no mode helps.
        optional: the program is of use without it: a port of a table is one of several.
    """

    device: Device
    map: str | None = None
    ifindex: int | None = None
    is_absent: bool = False
    optional: bool = False

    def serves(self, requirement: Requirement) -> bool:
        """Whether a redirect goes to this interface."""
        if self.map is not None:
            return self.map == requirement.map
        if self.ifindex is not None:
            return self.ifindex == requirement.ifindex
        return requirement.ifindex is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one requirement.

    Attributes:
        requirement: what is needed. finding: what is offered.
        device: the name of the interface that the finding is about.
        outcome: accepted, degraded or refused.
        why: the reason, as a phrase.
        remedy: what certainly helps, None where nothing does.
    """

    requirement: Requirement
    finding: Finding
    device: str
    outcome: Outcome
    why: str
    remedy: str | None = None

    @property
    def answer(self) -> Answer:
        """Whether it is offered."""
        return self.finding.answer

    def to_dict(self) -> dict[str, object]:
        """Return the verdict as plain data."""
        return {
            "requirement": self.requirement.to_dict(),
            "device": self.device,
            "capability": self.finding.capability,
            "offered": self.finding.answer.value,
            "limit": self.finding.limit,
            "evidence": self.finding.evidence,
            "outcome": self.outcome.value,
            "why": self.why,
            "remedy": self.remedy,
        }

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return a verdict from its plain form; keys that are not known are ignored.

        Raises:
            UsageError: it is none.
        """
        given = Document(data, "a verdict")
        return cls(
            requirement=Requirement.from_dict(given.mapping("requirement")),
            finding=Finding(
                capability=given.text("capability"),
                answer=given.choice("offered", Answer),
                evidence=given.text("evidence"),
                limit=given.number_or_none("limit"),
            ),
            device=given.text("device"),
            outcome=given.choice("outcome", Outcome),
            why=given.text("why"),
            remedy=given.text_or_none("remedy"),
        )


@dataclass(frozen=True, slots=True)
class Negotiation:
    """What came of holding a program against a device.

    Attributes:
        program: the program's name. device: the interface's, or the profile's.
        source: where the findings are from: "live", "profile mlx5@6.1".
        mode: "native", "generic" or "offload".
        policy: what was asked for.
        verdicts: on the mode first, then on each requirement, then on the configuration.
        notes: what somebody should know about the requirements.
    """

    program: str
    device: str
    source: str
    mode: str
    policy: Policy
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst of all outcomes."""
        found = {verdict.outcome for verdict in self.verdicts}
        return next((outcome for outcome in _BY_SEVERITY if outcome in found), Outcome.ACCEPTED)

    @property
    def is_allowed(self) -> bool:
        """Whether the policy lets the program in."""
        return self.policy is Policy.REPORT or self.outcome is not Outcome.REFUSED

    @property
    def refused(self) -> tuple[Verdict, ...]:
        return tuple(found for found in self.verdicts if found.outcome is Outcome.REFUSED)

    @property
    def degraded(self) -> tuple[Verdict, ...]:
        return tuple(found for found in self.verdicts if found.outcome is Outcome.DEGRADED)

    @property
    def remedies(self) -> tuple[str, ...]:
        """What helps against the refusals, each once."""
        return tuple(dict.fromkeys(found.remedy for found in self.refused if found.remedy))

    def to_dict(self) -> dict[str, object]:
        """Return all of it as plain data."""
        return {
            "program": self.program,
            "device": self.device,
            "source": self.source,
            "mode": self.mode,
            "policy": self.policy.value,
            "outcome": self.outcome.value,
            "allowed": self.is_allowed,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "remedies": list(self.remedies),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return what :meth:`to_dict` gave; keys that are not known are ignored.

        Raises:
            UsageError: it is no negotiation.
        """
        given = Document(data, "a negotiation")
        return cls(
            program=given.text("program"),
            device=given.text("device"),
            source=given.text("source"),
            mode=given.text("mode"),
            policy=given.choice("policy", Policy),
            verdicts=tuple(Verdict.from_dict(verdict) for verdict in given.items("verdicts")),
            notes=given.texts("notes"),
        )
