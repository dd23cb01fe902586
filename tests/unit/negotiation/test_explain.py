# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from tests.unit.negotiation.cases import (
    BIG_MTU,
    DROP_ONLY,
    FULL,
    NOT_NATIVE,
    UNKNOWN,
    VETH_TARGET,
    at,
    program,
)
from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.errors import RequirementUnmet
from xdpkit.negotiation import Policy, Target, negotiate, refusal, sentence
from xdpkit.requirements import Requirement, Requirements

REDIRECT = Requirement("redirect-devmap", origins=at(41), detail="tx_ports", map="tx_ports")
ANY = Requirement("action-any", origins=at(57), detail="from map limits")

CASES: dict[str, tuple[Requirements, Device, Policy, list[Target]]] = {
    "everything offered": (program("action-drop", "action-tx"), FULL, Policy.DEFAULT, []),
    "XDP_TX on a driver that only drops": (
        program("action-drop", "action-tx"),
        DROP_ONLY,
        Policy.DEFAULT,
        [],
    ),
    "no native XDP": (program("action-tx", REDIRECT), NOT_NATIVE, Policy.DEFAULT, []),
    "a veth target without a peer's program": (
        program("action-redirect", REDIRECT),
        FULL,
        Policy.DEFAULT,
        [Target(VETH_TARGET, map="tx_ports")],
    ),
    "an MTU too large": (
        program("action-drop"),
        replace(FULL, preconditions=(BIG_MTU,)),
        Policy.DEFAULT,
        [],
    ),
    "codes that are no actions": (
        program("action-code:42", "action-code:4294967295"),
        FULL,
        Policy.DEFAULT,
        [],
    ),
    "any value on a driver that only drops": (program(ANY), DROP_ONLY, Policy.DEFAULT, []),
    "nothing known, strictly": (
        program("action-tx", "helper:redirect_map", ANY, REDIRECT),
        UNKNOWN,
        Policy.STRICT,
        [],
    ),
    "an interface that is no port": (
        program("port-index", "port-table"),
        replace(
            FULL,
            findings={
                **FULL.findings,
                **{
                    name: Finding(
                        name, Answer.NO, "eth0 is a port of no table", remedy="xdpkit ports add"
                    )
                    for name in ("port-index", "port-table")
                },
            },
        ),
        Policy.DEFAULT,
        [],
    ),
    "a port table on a profile, and a field of a later version": (
        program("port-index", "port-set:guests", "context-field:rx_colour"),
        UNKNOWN,
        Policy.DEFAULT,
        [],
    ),
    "a port that does not transmit": (
        program("action-redirect", REDIRECT),
        FULL,
        Policy.DEFAULT,
        [Target(replace(VETH_TARGET, name="table lan"), map="tx_ports", optional=True)],
    ),
    "a broadcast of packets in several buffers, strictly": (
        program("redirect-broadcast", Requirement("frags", optional=True)),
        replace(
            FULL,
            findings={
                **FULL.findings,
                "redirect-broadcast": Finding("redirect-broadcast", Answer.YES, "probe: 0"),
            },
        ),
        Policy.STRICT,
        [],
    ),
    "a hint that is optional": (
        program(Requirement("rx-hash", origins=at(12), optional=True)),
        DROP_ONLY,
        Policy.DEFAULT,
        [],
    ),
}


def test_explanations_are_sentences(golden: Callable[[str, str], None]) -> None:
    lines: list[str] = []
    for title, (needs, device, policy, targets) in CASES.items():
        found = negotiate(needs, device, policy=policy, targets=targets)
        lines += [f"== {title}: {found.outcome.value}"]
        lines += [f"{verdict.outcome.value}: {sentence(verdict)}" for verdict in found.verdicts]
        if not found.is_allowed:
            lines.append(f"-> {refusal(found, f'attach fw to {device.name} in native mode')}")
        lines.append("")
    golden("explanations.txt", "\n".join(lines))


def test_a_refusal_is_an_unmet_requirement_that_names_the_line_and_the_remedy() -> None:
    found = negotiate(program("action-tx"), DROP_ONLY)
    error = refusal(found, "attach fw to old in native mode")
    assert isinstance(error, RequirementUnmet)
    assert "XDP_TX at fw.c:10" in error.cause
    assert "file old.json: not listed" in error.cause
    assert error.remedy is not None
    assert "--mode generic" in error.remedy


def test_a_long_list_of_refusals_is_cut() -> None:
    needs = program(*(f"helper:h{number}" for number in range(9)))
    error = refusal(negotiate(needs, UNKNOWN, policy=Policy.STRICT), "attach fw")
    assert error.cause.endswith("and 9 more, which 'xdpkit check' lists")


def test_a_negotiation_is_plain_data_for_json() -> None:
    found = negotiate(program("action-tx", notes=("a note",)), DROP_ONLY)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["outcome"] == "refused"
    assert data["allowed"] is False
    assert data["notes"] == ["a note"]
    (verdict,) = [item for item in data["verdicts"] if item["outcome"] == "refused"]
    assert verdict["requirement"]["origins"][0]["source"] == "fw.c:10"
    assert verdict["offered"] == "no"
