# SPDX-License-Identifier: Apache-2.0
"""An interface as data: live, from the table of drivers, or from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from xdpkit.capabilities.finding import Answer, Finding, Precondition
from xdpkit.capabilities.table import CAPABILITIES, Scope, capability
from xdpkit.errors import UsageError

DEVICE_SCHEMA = 1
"""Version of a device's JSON form."""

_MODES = ("native", "generic", "offload")
_MAX_NUMBER = 1 << 32
_MAX_ITEMS = 10_000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Device:
    """Everything that is known about an interface; a profile when it is not a live one.

    Attributes:
        name: the interface's name, or the profile's.
        driver: the driver's name as ``ethtool -i`` shows it; None: not known, or it has none.
        kernel: the kernel's release ("6.1"); None: not known.
        kind: link type of a virtual device ("veth"); None for hardware.
        mtu: bytes, without the Ethernet header.
        rx_queues, tx_queues: how many the device was made with.
        findings: by capability. preconditions: what attaching depends on now.
        source: where all this is from: "live", "profile mlx5@6.1", "file old.json".
        mode: the mode that the findings are about: "native", "generic" or "offload".
        otherwise: the answer for capabilities of the driver that have no finding. A profile that
            lists everything says NO.
    """

    name: str
    driver: str | None = None
    kernel: str | None = None
    kind: str | None = None
    mtu: int = 1500
    rx_queues: int = 1
    tx_queues: int = 1
    findings: Mapping[str, Finding] = field(default_factory=dict)
    preconditions: tuple[Precondition, ...] = ()
    source: str = "live"
    mode: str = "native"
    otherwise: Answer = Answer.UNKNOWN

    def finding(self, name: str) -> Finding:
        """Return what is known about a capability; without a finding, that nothing is known.

        Raises:
            UsageError: there is no capability of this name.
        """
        found = self.findings.get(name)
        if found is not None:
            return found
        info = capability(name)
        listed = info.scope is Scope.DRIVER and not name.startswith("mode-")
        return Finding(
            name,
            self.otherwise if listed else Answer.UNKNOWN,
            "not asked" if self.source == "live" else f"{self.source}: not listed",
        )

    def to_dict(self) -> dict[str, object]:
        """Return the device as plain data: a profile file."""
        return {
            "schema": DEVICE_SCHEMA,
            "name": self.name,
            "driver": self.driver,
            "kernel": self.kernel,
            "kind": self.kind,
            "mtu": self.mtu,
            "rx_queues": self.rx_queues,
            "tx_queues": self.tx_queues,
            "mode": self.mode,
            "otherwise": self.otherwise.value,
            "findings": {
                found.capability: {
                    "answer": found.answer.value,
                    "evidence": found.evidence,
                    "limit": found.limit,
                }
                for found in self.findings.values()
            },
            "preconditions": [
                {
                    "name": condition.name,
                    "answer": condition.answer.value,
                    "evidence": condition.evidence,
                    "modes": list(condition.modes),
                    "waived_by": condition.waived_by,
                    "remedy": condition.remedy,
                }
                for condition in self.preconditions
            ],
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, data: object, *, source: str | None = None) -> Device:
        """Return a device from its plain form.

        Only ``schema`` and ``name`` have to be there. A finding may be just its answer, so that
        a profile can be written by hand::

            {"schema": 1, "name": "old driver", "otherwise": "no",
             "findings": {"action-aborted": "yes", "action-drop": "yes", "action-pass": "yes"}}

        Args:
            data: what :meth:`to_dict` gave, or JSON from anywhere.
            source: where the data is from; None: as the data says.

        Raises:
            UsageError: it is no device, or one of a newer schema.
        """
        record = _Record(data, f"read device profile {source or ''}".rstrip())
        schema = record.get("schema", _number, None)
        if schema != DEVICE_SCHEMA:
            raise record.error(
                "its schema is missing" if schema is None else f"it has schema {schema}",
                remedy=f"this release reads schema {DEVICE_SCHEMA}",
            )
        name = record.get("name", _text, None)
        if not name:
            raise record.error("it has no name")
        said = record.get("source", _text, None)
        where = source or said or "profile"
        device = cls(
            name=name,
            driver=record.get("driver", _text, None),
            kernel=record.get("kernel", _text, None),
            kind=record.get("kind", _text, None),
            mtu=record.get("mtu", _number, 1500),
            rx_queues=record.get("rx_queues", _number, 1),
            tx_queues=record.get("tx_queues", _number, 1),
            mode=record.get("mode", _mode, "native"),
            otherwise=record.get("otherwise", _answer, Answer.UNKNOWN),
            findings=_findings(record, where),
            preconditions=_preconditions(record),
            source=where,
        )
        record.require_no_others()
        return device

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> Device:
        """Return a device from the text of a profile file.

        Raises:
            UsageError: it is no JSON, or no device.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"read device profile {source}", cause=f"it is not JSON: {error}"
            ) from None
        return cls.from_dict(data, source=source)


class _Record:
    """A JSON object whose keys are taken out one by one."""

    def __init__(self, data: object, what: str) -> None:
        self._what = what
        if not isinstance(data, dict):
            raise self.error("a JSON object is expected")
        self._left: dict[object, object] = dict(data)
        if len(self._left) > _MAX_ITEMS:
            raise self.error("it has too many entries")

    def error(self, cause: str, *, remedy: str | None = None) -> UsageError:
        return UsageError(self._what, cause=cause, remedy=remedy)

    def get(self, key: str, convert: Callable[[object], _T], default: Any) -> Any:
        """Take a value out; null and absent give the default."""
        value = self._left.pop(key, None)
        if value is None:
            return default
        try:
            return convert(value)
        except ValueError as error:
            raise self.error(f"{key}: {error}") from None

    def inner(self, data: object, place: str) -> _Record:
        return _Record(data, f"{self._what}, {place}")

    def require_no_others(self) -> None:
        for key in self._left:
            raise self.error(f"it has an unknown key, {str(key)[:80]!r}")


def _findings(record: _Record, source: str) -> dict[str, Finding]:
    listed = record.get("findings", _mapping, {})
    found: dict[str, Finding] = {}
    for name, value in listed.items():
        try:
            capability(name)
        except UsageError as error:
            raise record.error(
                f"findings: {error.what}: {error.cause}", remedy=error.remedy
            ) from None
        # Findings of a profile are as good as their source; a short one has no other evidence.
        if isinstance(value, str):
            value = {"answer": value}
        entry = record.inner(value, f"finding {name}")
        answer = entry.get("answer", _answer, None)
        if answer is None:
            raise entry.error("it has no answer")
        found[name] = Finding(
            name,
            answer,
            entry.get("evidence", _text, source),
            entry.get("limit", _number, None),
        )
        entry.require_no_others()
    return found


def _preconditions(record: _Record) -> tuple[Precondition, ...]:
    conditions = []
    for at, value in enumerate(record.get("preconditions", _list, [])):
        entry = record.inner(value, f"precondition {at}")
        name = entry.get("name", _text, None)
        answer = entry.get("answer", _answer, None)
        if name is None or answer is None:
            raise entry.error("it needs a name and an answer")
        waived_by = entry.get("waived_by", _text, None)
        if waived_by is not None and waived_by not in CAPABILITIES:
            raise entry.error(f"waived_by: there is no capability {waived_by[:80]!r}")
        modes = entry.get("modes", _list, ["native"])
        conditions.append(
            Precondition(
                name=name,
                answer=answer,
                evidence=entry.get("evidence", _text, ""),
                modes=_modes(entry, modes),
                waived_by=waived_by,
                remedy=entry.get("remedy", _text, None),
            )
        )
        entry.require_no_others()
    return tuple(conditions)


def _modes(entry: _Record, values: list[object]) -> tuple[str, ...]:
    try:
        return tuple(_mode(value) for value in values)
    except ValueError as error:
        raise entry.error(f"modes: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("text is expected")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_NUMBER:
        raise ValueError("a number from 0 to 4294967295 is expected")
    return value


def _answer(value: object) -> Answer:
    try:
        return Answer(value)
    except ValueError:
        raise ValueError('"yes", "no" or "unknown" is expected') from None


def _mode(value: object) -> str:
    if not isinstance(value, str) or value not in _MODES:
        raise ValueError('"native", "generic" or "offload" is expected')
    return value


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
        raise ValueError("a JSON object is expected")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise ValueError("a JSON array is expected")
    return value
