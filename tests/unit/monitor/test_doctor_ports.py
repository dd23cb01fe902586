# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of port tables, provoked by values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.monitor.patients import NOW, facts, program, record
from tests.unit.monitor.patients import hook as hook_of
from tests.unit.monitor.snapshots import (
    HERE,
    INSTALLED,
    THERE,
    error,
    lan,
    redirect_error,
    transmit,
)
from xdpkit.capabilities import Answer, Finding
from xdpkit.hook.record import PortOf
from xdpkit.monitor.complaints.facts import Code, Facts, HookFacts, Member, RedirectMap
from xdpkit.monitor.doctor import Complaint, Severity, diagnose
from xdpkit.monitor.layout import INDEX_ALL
from xdpkit.monitor.model import Group, Target, Where
from xdpkit.monitor.portcounts import (
    PortCounts,
    PortError,
    PortState,
    PortTrouble,
    TableCounts,
)
from xdpkit.negotiation import Outcome, Verdict
from xdpkit.requirements import Requirement

MAP = 20
DEVMAP = RedirectMap(MAP, "devmap", None)


def verdict(capability: str, outcome: Outcome, why: str, remedy: str | None = None) -> Verdict:
    answer = Answer.YES if outcome is Outcome.ACCEPTED else Answer.NO
    finding = Finding(capability, answer, why)
    return Verdict(Requirement(capability), finding, "eth0", outcome, why, remedy)


def seen(*ports: PortCounts, name: str = "lan", **fields: Any) -> Facts:
    given = {
        each: fields.pop(each)
        for each in ("broadcast_errors", "unassigned", "maps")
        if each in fields
    }
    table = TableCounts(name, 64, ports, **given)
    snapshot = {"tables": (table,), **fields.pop("snapshot", {})}
    return facts(*fields.pop("hooks", ()), snapshot=snapshot, **fields)


def port(number: int = 2, where: Where | None = HERE, **fields: Any) -> PortCounts:
    given: dict[str, Any] = {"state": PortState.UP, "received": 0, **fields}
    return PortCounts(number, "eth1", where=where, **given)


def troubled(kind: str, counted: str = "", **fields: Any) -> PortCounts:
    return port(troubles=(PortTrouble(kind, f"eth0 is {kind}", counted),), **fields)


def only(found: Facts) -> Complaint:
    (complaint,) = diagnose(found).complaints
    return complaint


def kinds(found: Facts) -> list[str]:
    return [each.kind for each in diagnose(found).complaints]


def test_ports_in_order_are_looked_at_and_no_complaint() -> None:
    found = diagnose(seen(port()))
    assert found.complaints == ()
    assert "the ports of lan" in found.looked_at


def test_a_port_that_is_down_is_told_with_what_becomes_of_frames() -> None:
    lost = (PortError("ENETDOWN", 9), PortError("EMSGSIZE", 100))
    complaint = only(seen(troubled("down", "ENETDOWN", state=PortState.DOWN, errors=lost)))
    assert (complaint.severity, complaint.kind) == (Severity.WARNING, "port-down")
    assert complaint.what == "port 2 (eth1) of lan: eth0 is down"
    assert complaint.interface == "eth0"
    assert complaint.evidence == (
        "frames to it are lost, and counted as ENETDOWN",
        "a broadcast in native mode skips it, which nothing counts",
        "counted so far: 9 packets",
    )
    assert complaint.packets == 9
    assert complaint.remedy == "ip link set dev eth0 up"


def test_cause_and_remedy_are_those_of_the_verdict_that_is_about_the_same() -> None:
    refused = verdict("redirect-target", Outcome.REFUSED, "its peer has no program", "do this")
    fine = verdict("mode-native", Outcome.ACCEPTED, "netdev says so")
    complaint = only(
        seen(troubled("no-transmit", "EOPNOTSUPP"), fitness={("lan", 2): (fine, refused)})
    )
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "port-no-transmit")
    assert (complaint.cause, complaint.remedy) == ("its peer has no program", "do this")


def test_what_else_a_port_is_not_fit_for_is_told_by_itself() -> None:
    why = "its peer, eth0p, leaves checksums unfinished"
    degraded = verdict("precondition:checksums", Outcome.DEGRADED, why, "ethtool -K eth0p tx off")
    complaint = only(seen(port(), fitness={("lan", 2): (degraded,)}))
    assert (complaint.severity, complaint.kind) == (Severity.WARNING, "port-unfit")
    assert complaint.what.startswith("port 2 (eth1) of lan: ")
    assert why in complaint.what
    assert complaint.remedy == "ethtool -K eth0p tx off"


def test_what_many_ports_are_not_fit_for_is_told_once() -> None:
    tags = verdict("precondition:vlan-tags", Outcome.DEGRADED, "eth0 forgets tags")
    sums = verdict("precondition:checksums", Outcome.DEGRADED, "eth0 leaves checksums unfinished")
    found = seen(port(1), port(2), fitness={("lan", 1): (tags, sums), ("lan", 2): (tags, sums)})
    first, second = diagnose(found).complaints
    assert (first.severity, second.severity) == (Severity.WARNING, Severity.NOTE)
    assert first.evidence == ("the same is true of port 2 (eth1) of lan",)
    assert second.what == "port 1 (eth1) of lan: eth0 forgets tags"


def test_what_is_out_of_step_is_followed_and_what_is_gone_can_be_removed() -> None:
    complaint = only(seen(troubled("out-of-step", "absent")))
    assert complaint.remedy == "have it followed: xdpkit ports watch lan"
    complaint = only(seen(troubled("absent", "absent", state=PortState.ABSENT, received=None)))
    assert complaint.remedy == "if it is not to come back: xdpkit ports remove lan 2"


def test_a_small_mtu_is_worth_knowing() -> None:
    complaint = only(seen(troubled("mtu", "EMSGSIZE")))
    assert complaint.severity is Severity.NOTE
    assert complaint.evidence[0] == "longer frames to it are lost, and counted as EMSGSIZE"


def test_ports_elsewhere_are_told_where_nothing_was_asked_for_by_name() -> None:
    away = replace(troubled("down", "ENETDOWN", state=PortState.DOWN), where=THERE)
    complaint = only(seen(away))
    # How to enter that namespace is not known for sure.
    assert (complaint.interface, complaint.remedy) == ("veth1", None)
    assert kinds(seen(away, only=frozenset({"veth1"}))) == []
    assert kinds(seen(away, netns="red")) == []


def test_an_egress_program_that_fails_is_told_once_and_as_the_ports() -> None:
    failed = replace(error(HERE, program="mark", packets=3, last_seen=NOW), in_map=True)
    lost = (PortError("aborted", 3, NOW),)
    complaint = only(seen(port(egress="mark", errors=lost), tracepoints={"errors": (failed,)}))
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "port-egress")
    assert complaint.what == (
        "3 packets were dropped: mark, of what port 2 (eth1) of lan sends, returned XDP_ABORTED"
    )
    assert (complaint.program, complaint.packets) == ("mark", 3)
    complaint = only(seen(port(errors=lost), tracepoints={"errors": (failed,)}))
    assert complaint.severity is Severity.NOTE


def test_a_broadcast_that_failed_as_a_whole_is_the_tables() -> None:
    complaint = only(seen(port(), broadcast_errors=(PortError("ENETDOWN", 4),)))
    assert complaint.kind == "broadcast-failed"
    assert complaint.what == (
        "4 packets were lost that were to go to several ports of lan (ENETDOWN)"
    )


def test_a_broadcast_of_a_program_is_told_once_with_the_ports_at_which_it_ended() -> None:
    entries = Target("devmap", "all entries", 0, MAP, INDEX_ALL)
    failed = redirect_error(target=entries, packets=4, last_seen=NOW)
    ports = (
        port(1, replace(HERE, ifindex=8, interface="eth8"), state=PortState.UP),
        troubled("down", "ENETDOWN", state=PortState.DOWN, errors=()),
        troubled("down", "ENETDOWN", number=3, state=PortState.DOWN),
    )
    found = seen(
        *ports,
        broadcast_errors=(PortError("ENETDOWN", 4),),
        # Port 3 is none of the set's.
        maps={MAP: frozenset({1, 2})},
        tracepoints={"redirect_errors": (failed,)},
        hooks=(hook_of(Member(program())),),
    )
    assert "broadcast-failed" not in kinds(found)
    complaint = next(each for each in diagnose(found).complaints if each.kind == "redirect-failed")
    assert complaint.what == (
        "4 packets were lost: firewall redirected to all entries, and that failed with ENETDOWN"
    )
    assert complaint.cause is not None
    assert complaint.cause.endswith(
        "in generic mode a broadcast ends at the first port that fails; now port 2 of lan: eth0 is"
        " down"
    )
    assert complaint.remedy == "ip link set dev eth0 up"


def aborting(*ports: PortCounts, **fields: Any) -> Complaint:
    """What is said of a program that has aborted and uses the table."""
    code = Code(40, "firewall", None, "it is not known", redirects={"xdpkit_ports": DEVMAP})
    found = seen(
        *ports,
        maps={MAP: frozenset()},
        tracepoints={"errors": (error(packets=20, last_seen=NOW),)},
        hooks=(hook_of(Member(program(), code=(code,))),),
        **fields,
    )
    return next(each for each in diagnose(found).complaints if each.kind == "aborted")


def test_a_program_that_sent_to_ports_without_interface_is_told_which_they_are() -> None:
    lost = (PortError("absent", 9),)
    gone = troubled("absent", "absent", state=PortState.ABSENT, errors=lost)
    complaint = aborting(gone)
    assert complaint.evidence[1:] == ("9 packets to port 2 (eth1) of lan, whose interface is gone",)
    assert complaint.remedy == (
        "once its interface is there, have it followed: xdpkit ports watch lan"
    )
    complaint = aborting(port(where=None, state=PortState.VACANT, errors=lost))
    assert complaint.evidence[1:] == (
        "9 packets to port 2 (eth1) of lan, whose interface was removed",
    )
    assert complaint.remedy == "give it an interface: xdpkit ports add lan IFACE --number 2"
    complaint = aborting(port(errors=lost), unassigned={5: 1})
    assert complaint.evidence[1:] == (
        "9 packets to port 2 (eth1) of lan, which had no interface for a time",
        "1 packet to number 5 of lan, which no port has",
    )
    assert complaint.remedy == "give it an interface: xdpkit ports add lan IFACE --number 5"


def test_frames_to_numbers_without_a_port_are_mentioned() -> None:
    complaint = only(seen(unassigned={5: 3}))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "port-unassigned")
    assert complaint.what == "3 packets were sent to number 5 of lan, which no port has"
    assert kinds(seen(unassigned={5: 3}, netns="red")) == []


def untaken(found: PortCounts, **fields: Any) -> str | None:
    """Return why the interface of a port is said not to have taken frames."""
    sent = transmit(THERE, where=HERE, sent=1, dropped=3, **fields)
    complaints = diagnose(seen(found, tracepoints={"transmits": (sent,)})).complaints
    return next(each.cause for each in complaints if each.kind == "transmit-drops")


def test_a_port_whose_other_end_is_down_has_no_wrong_cause_for_what_it_does_not_take() -> None:
    cause = untaken(troubled("no-carrier", "transmit_drops"), error="ENXIO")
    assert cause == "eth0 is no-carrier: the other end is down, or not connected"


def test_what_an_egress_program_drops_is_not_a_full_queues_fault_alone() -> None:
    full = untaken(port())
    assert full is not None
    assert "queue is full" in full
    dropped = "mark, the egress program of port 2, dropped them"
    assert untaken(port(egress="mark")) == f"{dropped}; or {full}"
    assert untaken(port(egress="mark", xmit_errors=0)) == dropped
    assert "has no queue" in (untaken(port(egress="mark"), error="ENXIO") or "")


def test_each_of_many_unfit_ports_has_its_own_remedy() -> None:
    def tags(name: str) -> Verdict:
        remedy = f"ethtool -K {name} txvlan off"
        return verdict("precondition:vlan-tags", Outcome.DEGRADED, f"{name} forgets tags", remedy)

    fitness = {("lan", 1): (tags("eth0p"),), ("lan", 2): (tags("eth1p"),)}
    complaint = only(seen(port(1), port(2), fitness=fitness))
    assert complaint.remedy == "ethtool -K eth0p txvlan off; ethtool -K eth1p txvlan off"


def bound(*, number: int | None = 2, table: str = "lan") -> HookFacts:
    """A hook whose program was told of a port."""
    stored = record(port=PortOf(table, number, "eth1"))
    return hook_of(Member(program(record=stored)))


def test_a_program_with_the_number_that_its_interface_has_is_right() -> None:
    assert kinds(seen(port(), hooks=(bound(),))) == []
    assert kinds(seen(port(3), hooks=(bound(number=None),))) == []


def test_a_program_that_takes_itself_for_another_port_is_an_error() -> None:
    complaint = only(seen(port(3), hooks=(bound(),)))
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "port-number")
    assert complaint.what == (
        "firewall on eth0 takes itself for port 2 (eth1) of table lan, and eth0 is port 3 now"
    )
    complaint = only(seen(port(2, THERE), hooks=(bound(),)))
    assert complaint.what.endswith("and eth0 is no port of it any more")
    complaint = only(seen(port(), hooks=(bound(table="gone"),)))
    assert complaint.what.endswith("and there is no such table any more")


def test_that_transmission_is_not_counted_is_said_where_there_are_ports() -> None:
    errors_only = replace(INSTALLED, absent=(), groups=frozenset({Group.ERRORS}))
    complaint = only(seen(port(), snapshot={"installed": errors_only}))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "transmit-not-counted")
    assert complaint.remedy == "xdpkit monitor install --transmit"
    assert kinds(facts(snapshot={"installed": errors_only})) == []


def test_something_of_everything_is_told_worst_first() -> None:
    assert kinds(facts(snapshot={"tables": (lan(),)})) == [
        "port-egress",
        "port-absent",
        "broadcast-failed",
        "port-down",
        "port-unassigned",
        "port-mtu",
        "port-unassigned",
    ]
