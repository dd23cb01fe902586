# SPDX-License-Identifier: Apache-2.0
"""Programs and devices as values, for negotiation without a kernel."""

from __future__ import annotations

from xdpkit.capabilities import Answer, Device, Finding, Precondition
from xdpkit.requirements import Origin, Requirement, Requirements

ALL_ACTIONS = ("aborted", "drop", "pass", "tx", "redirect")


def at(line: int) -> tuple[Origin, ...]:
    """Return an origin in fw.c."""
    return (Origin("fw", line * 2, "fw", f"fw.c:{line}"),)


def program(*needs: str | Requirement, notes: tuple[str, ...] = ()) -> Requirements:
    """Return a program that needs this; capabilities by name come from lines 10, 20, 30…"""
    items = tuple(
        need if isinstance(need, Requirement) else Requirement(need, origins=at(10 * number))
        for number, need in enumerate(needs, 1)
    )
    return Requirements("fw", items, notes)


def findings(answers: dict[str, Answer], evidence: str) -> dict[str, Finding]:
    return {name: Finding(name, answer, evidence) for name, answer in answers.items()}


FULL = Device(
    name="eth0",
    driver="mlx5_core",
    findings=findings(
        {
            "mode-native": Answer.YES,
            **{f"action-{action}": Answer.YES for action in ALL_ACTIONS},
            "redirect-devmap": Answer.YES,
            "redirect-ifindex": Answer.YES,
            "frags": Answer.YES,
            "rx-hash": Answer.YES,
        },
        "netdev: BASIC, REDIRECT, RX_SG",
    ),
)

DROP_ONLY = Device(
    name="old",
    findings=findings(
        {"action-aborted": Answer.YES, "action-drop": Answer.YES, "action-pass": Answer.YES},
        "file old.json",
    ),
    source="file old.json",
    otherwise=Answer.NO,
)

NOT_NATIVE = Device(
    name="eth1",
    driver="r8169",
    findings=findings(
        {
            "mode-native": Answer.NO,
            **{f"action-{action}": Answer.NO for action in ALL_ACTIONS},
            "redirect-devmap": Answer.NO,
            "frags": Answer.NO,
        },
        "driver r8169 has no native XDP",
    ),
)

UNKNOWN = Device(name="eth2")

VETH_TARGET = Device(
    name="veth1",
    driver="veth",
    kind="veth",
    findings={
        "redirect-target": Finding(
            "redirect-target",
            Answer.NO,
            "netdev: NDO_XMIT clear on veth1; its peer has no XDP program",
        )
    },
)

BIG_MTU = Precondition(
    "mtu",
    Answer.NO,
    "the peer veth1 has MTU 9000, at most 3506 without frags",
    waived_by="frags",
    remedy="lower the MTU of veth1 to 3506",
)
