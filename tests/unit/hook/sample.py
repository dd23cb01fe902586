# SPDX-License-Identifier: Apache-2.0
"""A record with something in every field."""

from __future__ import annotations

from xdpkit.capabilities import Answer, Finding
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.record import Origin, PortOf, Record
from xdpkit.hook.settings import Counting
from xdpkit.negotiation import Negotiation, Outcome, Policy, Verdict
from xdpkit.requirements import Origin as Place
from xdpkit.requirements import Requirement

REDIRECT = Requirement(
    "redirect-devmap",
    origins=(Place("firewall", 41, "forward", "fw.c:57"), Place("firewall", 60, "firewall")),
    optional=True,
    declared=True,
    detail="tx_ports",
    map="tx_ports",
    ifindex=4,
)

NEGOTIATION = Negotiation(
    program="firewall",
    device="eth0",
    source="live",
    mode="native",
    policy=Policy.STRICT,
    verdicts=(
        Verdict(
            REDIRECT,
            Finding("redirect-target", Answer.NO, "netdev: NDO_XMIT clear on veth1", limit=9000),
            device="veth1",
            outcome=Outcome.DEGRADED,
            why="frames for veth1 are dropped",
            remedy="attach a program to its peer",
        ),
        Verdict(
            Requirement("a-capability-of-tomorrow"),
            Finding("a-capability-of-tomorrow", Answer.UNKNOWN, ""),
            device="eth0",
            outcome=Outcome.ACCEPTED,
            why="not asked",
        ),
    ),
    notes=("declares action-tx, which was not found",),
)

ORIGIN = Origin(
    path="/srv/fw-\udcff.o",
    sha256="ab" * 32,
    variables={
        "port": 53,
        "name": b"edge\0\0",
        "raw": b"\xff\x00",
        "limits": [1, {"hex": b"\x01", "low": -(1 << 63)}],
        "strict": True,
    },
    policy="strict",
    was_forced=True,
    xdpkit="9.8.7",
)

RECORD = Record(
    program="firewall_with_a_long_name",
    interface="eth0.100",
    ifindex=7,
    netns_cookie=(1 << 64) - 1,
    mode=Mode.GENERIC,
    via=Via.NETLINK,
    cookie=1 << 63,
    attached_at=1_760_000_000_123_456_789,
    revert_at=12_345_678_901,
    reverts_to=99,
    origin=ORIGIN,
    negotiation=NEGOTIATION,
    queues=(0, 3),
    port=PortOf("lan", 0, "uplink", 31),
    logical_id=17,
    counting=Counting.PACKETS | Counting.BYTES,
)
