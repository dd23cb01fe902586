# SPDX-License-Identifier: Apache-2.0
"""What the doctor makes of what was seen: each complaint, provoked by values."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.unit.cli.reports import counts, report, without_program
from tests.unit.cli.reports import program as counted
from tests.unit.monitor import snapshots
from tests.unit.monitor.patients import (
    AT,
    DEVICE,
    NOW,
    SECOND,
    analysed,
    facts,
    healthy,
    hook,
    negotiated,
    program,
    record,
    redirecting,
    returning,
    tail_calling,
    without,
)
from tests.unit.monitor.snapshots import INSTALLED, cpumap, error, redirect_error, transmit
from xdpkit.capabilities import Answer, Finding
from xdpkit.hook import Cleaned, MapSummary, Mode, Owner, ProgramSummary
from xdpkit.hook.counters import CounterReport
from xdpkit.hook.dispatcher import Component, Dispatcher
from xdpkit.hook.roots import Root
from xdpkit.isa import asm
from xdpkit.isa.opcodes import JmpOp, Register
from xdpkit.monitor.complaints import lines
from xdpkit.monitor.complaints.complaint import ago
from xdpkit.monitor.complaints.facts import (
    Code,
    Facts,
    HookFacts,
    Member,
    ProgArray,
    RedirectMap,
    TargetState,
)
from xdpkit.monitor.complaints.gathering import folded
from xdpkit.monitor.doctor import Complaint, Severity, diagnose
from xdpkit.monitor.model import DriverCount, DriverCounts, ErrorCount, Reason, Target, Where
from xdpkit.negotiation import Outcome, Verdict
from xdpkit.requirements import Origin, Requirement
from xdpkit.rewrite import Counts
from xdpkit.uapi.bpf import XdpAction

HERE = Where("", "eth0", 2)
RECENTLY, LONG_AGO = NOW - 60 * SECOND, NOW - 7200 * SECOND


def only(found: Facts, *, kind: str | None = None) -> Complaint:
    complaints = diagnose(found).complaints
    (complaint,) = [each for each in complaints if kind in (None, each.kind)]
    return complaint


def kinds(found: Facts) -> list[tuple[str, str]]:
    return [(each.severity.value, each.kind) for each in diagnose(found).complaints]


def wrong(returned: int, *, packets: int = 12, seen: int = RECENTLY, **fields: Any) -> ErrorCount:
    made = error(action="invalid", reason=Reason.INVALID, packets=packets, **fields)
    return replace(made, returned=returned, last_seen=seen)


def aborted(*, seen: int = RECENTLY, **fields: Any) -> ErrorCount:
    return replace(error(**fields), last_seen=seen)


def test_nothing_is_wrong_with_what_is_well() -> None:
    found = diagnose(facts(healthy()))
    assert found.complaints == ()
    assert found.is_well


def test_notes_do_not_make_ill() -> None:
    found = diagnose(facts(healthy(), snapshot={"installed": None}))
    assert [each.kind for each in found.complaints] == ["monitor-not-installed"]
    assert found.is_well


def test_the_worst_comes_first() -> None:
    found = facts(
        hook(Member(program(mode=Mode.GENERIC), code=(returning(42),))),
        tracepoints={"errors": (wrong(42),), "other": 3, "attach_failures": {"no": 1}},
        has_jit=False,
    )
    assert kinds(found) == [
        ("error", "invalid-action"),
        ("warning", "errors-not-told-apart"),
        ("warning", "jit-off"),
        ("note", "generic-mode"),
        ("note", "attach-refused"),
    ]


# What programs returned


def test_a_number_that_is_no_action_is_told_with_the_lines_that_return_it() -> None:
    ill = hook(Member(program(), code=(returning(2, 42, 99),)))
    complaint = only(facts(ill, tracepoints={"errors": (wrong(42),)}))
    assert complaint.severity is Severity.ERROR
    assert complaint.what == (
        "12 packets were dropped: firewall returned numbers that are no action, at last 42"
    )
    assert complaint.cause == "fw.c:14 returns 42; fw.c:17 returns 99"
    assert complaint.evidence == (
        "tracepoint xdp_exception: 12 packets, at last 42, last seen 1 min ago",
    )
    assert complaint.last_seen == AT - timedelta(minutes=1)
    assert complaint.remedy == ("correct it, and: xdpkit replace --program firewall eth0 /srv/fw.o")


def test_a_number_is_that_of_all_packets_only_where_there_is_no_other() -> None:
    def told(*codes: int, packets: int = 11) -> str:
        ill = hook(Member(program(), code=(returning(*codes),) if codes else ()))
        last = {"errors": (wrong(99, packets=packets),)}
        return only(facts(ill, tracepoints=last)).what.partition("firewall returned ")[2]

    assert told(2, 99) == "99, which is no action"
    assert told(2, 42, 99) == "numbers that are no action, at last 99"
    assert told(2, 42, 99, packets=1) == "99, which is no action"
    assert told() == "numbers that are no action, at last 99"


def test_counters_alone_name_the_number_where_there_is_no_other() -> None:
    def told(*codes: int) -> str:
        found = {"returned": (report(counted(40, {0: counts(invalid=5)})),)}
        ill = hook(Member(program(), code=(returning(*codes),)))
        return only(facts(ill, snapshot=found)).what.partition("firewall returned ")[2]

    assert told(2, 42) == "42, which is no action"
    assert told(2, 42, 43) == "numbers that are no action"


def test_several_programs_with_counters_are_told_apart() -> None:
    ill = hook(
        Member(program(41, "first"), (0,), (returning(42, name="first", number=41),)),
        Member(program(42, "second"), (1,), (returning(43, name="second", number=42),)),
        on_hook=program(40, "xdpkit_root", root=Root(40, 5, 8, 6)),
    )
    returned = report(
        counted(41, {0: counts(invalid=1)}, name="first"),
        counted(42, {1: counts(invalid=5)}, name="second"),
    )
    told = wrong(43, packets=6, program="xdpkit_root", program_id=40)
    found = facts(ill, tracepoints={"errors": (told,)}, snapshot={"returned": (returned,)})
    assert [each.what for each in diagnose(found).complaints] == [
        "5 packets were dropped: second returned 43, which is no action",
        "1 packet was dropped: first returned 42, which is no action",
    ]


def test_lines_are_not_told_without_end() -> None:
    analysis = analysed(
        asm.load(Register.R2, Register.R1, 12, size=4),
        *(
            each
            for number in range(9)
            for each in (
                asm.branch(JmpOp.JNE, Register.R2, number, 2),
                asm.mov(Register.R0, 3),
                asm.exit(),
            )
        ),
        asm.mov(Register.R0, 2),
        asm.exit(),
    )
    code = Code(40, "firewall", analysis)
    lacking = without("action-tx", "netdev: BASIC clear")
    told = replace(error(action="tx", reason=Reason.UNSUPPORTED, packets=2), returned=3)
    ill = hook(Member(program(), code=(code,)), device=lacking)
    complaint = only(facts(ill, tracepoints={"errors": (told,)}))
    assert complaint.evidence[-1] == "and 5 more"
    assert len(complaint.evidence) == 6
    sent = report(counted(40, {0: Counts((0, 0, 0, 5, 0, 0), None)}))
    complaint = only(facts(ill, snapshot={"returned": (sent,)}))
    assert (complaint.kind, len(complaint.evidence)) == ("tx-lost", 5)


def test_counters_tell_which_of_several_programs_it_was() -> None:
    ill = hook(
        Member(program(41, "first"), (0, 1), (returning(42, name="first", number=41),)),
        Member(program(42, "second"), (2,), (returning(43, name="second", number=42),)),
        on_hook=program(40, "xdpkit_root", root=Root(40, 5, 8, 6)),
    )
    returned = report(
        counted(41, {0: counts(passed=9)}, name="first"),
        counted(42, {2: counts(invalid=5)}, name="second"),
    )
    told = wrong(43, packets=7, program="xdpkit_root", program_id=40)
    complaint = only(
        facts(ill, tracepoints={"errors": (told,)}, snapshot={"returned": (returned,)})
    )
    assert complaint.program == "second"
    # What the kernel told began before the counting.
    assert complaint.what == "7 packets were dropped: second returned 43, which is no action"
    assert complaint.cause == "fw.c:11 returns 43"
    assert complaint.evidence[0] == "counters: 5 packets of queue 2"
    assert complaint.remedy is not None
    assert "--queue 2 " in complaint.remedy


def test_what_a_root_is_blamed_for_may_be_of_any_of_its_programs() -> None:
    ill = hook(
        Member(program(41, "first"), (0,), (returning(42, name="first", number=41),)),
        Member(program(42, "second"), None, (returning(2, name="second", number=42),)),
        on_hook=program(40, "xdpkit_root", root=Root(40, 5, 8, 6)),
    )
    told = wrong(42, program="xdpkit_root", program_id=40)
    complaint = only(facts(ill, tracepoints={"errors": (told,)}))
    assert complaint.what.endswith(
        "one of the programs of the RX queues returned 42, which is no action"
    )
    assert complaint.program == ""
    assert complaint.cause == "first: fw.c:11 returns 42"


def test_lines_that_nobody_kept_are_said_not_to_be_known() -> None:
    foreign = program(owner=Owner.UNKNOWN, record=None, pinned=None)
    code = Code(40, "firewall", None, "xdpkit did not load it")
    found = facts(hook(Member(foreign, code=(code,))), tracepoints={"errors": (wrong(42),)})
    complaint = only(found, kind="invalid-action")
    assert complaint.cause == "which line it is cannot be told: xdpkit did not load it"
    assert complaint.remedy is None


def test_a_program_that_left_is_only_mentioned() -> None:
    told = wrong(42, program="before", program_id=12)
    complaint = only(facts(healthy(), tracepoints={"errors": (told,)}))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "invalid-action")
    assert complaint.what == "12 packets were lost on eth0 by before, which is not there now"


def test_a_corrected_program_of_the_same_name_is_not_blamed_for_its_forerunner() -> None:
    before = wrong(42, program_id=12, seen=LONG_AGO)
    assert kinds(facts(healthy(), tracepoints={"errors": (before,)})) == [
        ("note", "invalid-action")
    ]


def test_a_copy_is_recognised_by_its_name_and_the_time() -> None:
    copies = (wrong(42, program_id=12, packets=3), wrong(42, program_id=40, packets=4))
    ill = hook(Member(program(), code=(returning(42),)))
    complaint = only(facts(ill, tracepoints={"errors": copies}))
    assert complaint.severity is Severity.ERROR
    assert complaint.what.startswith("7 packets were dropped: firewall returned 42")


def test_aborted_packets_are_told_with_the_redirects_that_fall_back_to_it() -> None:
    ports = RedirectMap(9, "devmap", (0, 3), (5, 6))
    ill = hook(Member(program(), code=(redirecting(redirects={"ports": ports}),)))
    complaint = only(facts(ill, tracepoints={"errors": (aborted(packets=1),)}))
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "aborted")
    assert complaint.what == "1 packet was dropped: firewall returned XDP_ABORTED"
    assert complaint.cause == (
        "bpf_redirect_map() at fw.c:14 gives XDP_ABORTED where ports has no entry for the key (now"
        " it has: 0, 3)"
    )


def test_what_is_in_the_map_is_told_as_far_as_it_is_known() -> None:
    def cause(keys: tuple[int, ...] | None) -> str:
        code = redirecting(redirects={"ports": RedirectMap(9, "xskmap", keys)})
        (text,) = lines.returning([code], XdpAction.ABORTED.__eq__)
        return text.partition("where ports ")[2]

    assert cause(None) == "has no entry for the key"
    assert cause(()) == "has no entry for the key (it has none at all now)"
    assert cause((7,)) == "has no entry for the key (now it has: 7)"


def test_a_redirect_with_wrong_flags_is_told_as_such() -> None:
    analysis = analysed(
        asm.mov(Register.R1, 3), asm.mov(Register.R2, 1), asm.call("redirect"), asm.exit()
    )
    told = lines.returning([Code(40, "firewall", analysis)], XdpAction.ABORTED.__eq__)
    assert told == ("bpf_redirect() at fw.c:12 gives XDP_ABORTED for wrong flags",)


def test_an_action_that_the_driver_lacks_is_told_with_what_is_known_of_the_driver() -> None:
    lacking = without("action-tx", "netdev: BASIC clear")
    ill = hook(Member(program(), code=(returning(3, 2),)), device=lacking)
    told = replace(error(action="tx", reason=Reason.UNSUPPORTED, packets=2), returned=3)
    complaint = only(facts(ill, tracepoints={"errors": (told,)}))
    assert complaint.kind == "unsupported-action"
    assert (
        complaint.what == "2 packets were lost: eth0 does not have XDP_TX, which firewall returned"
    )
    assert complaint.cause == "netdev: BASIC clear"
    assert "fw.c:11 returns XDP_TX" in complaint.evidence


def test_a_veth_that_cannot_transmit_says_what_its_peer_needs() -> None:
    veth = replace(without("action-tx", "the peer has no native program"), kind="veth")
    told = replace(error(action="tx", reason=Reason.TX_FAILED), returned=3)
    ill = hook(Member(program(), code=(returning(3),)), device=veth)
    complaint = only(facts(ill, tracepoints={"errors": (told,)}))
    assert complaint.kind == "tx-failed"
    assert complaint.cause == "the peer has no native program"
    assert complaint.remedy is not None
    assert complaint.remedy.startswith("attach a program to the veth peer of eth0")


def test_transmission_that_cannot_work_is_told_from_counters_alone() -> None:
    sent = report(counted(40, {0: Counts((0, 0, 0, 5, 0, 0), None)}))
    veth = without("action-tx", "the peer has no native program")
    ill = hook(Member(program(), code=(returning(3),)), device=veth)
    found = facts(ill, snapshot={"returned": (sent,), "drivers": (driver("tx_errors", 5),)})
    complaint = only(found)
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "tx-lost")
    assert complaint.what == "5 packets were lost: firewall returned XDP_TX, which eth0 cannot do"


def test_a_failed_redirect_is_not_told_twice() -> None:
    both = {
        "errors": (replace(error(action="redirect", reason=Reason.REDIRECT_FAILED), returned=4),),
        "redirect_errors": (redirect_error(),),
    }
    assert kinds(facts(healthy(), tracepoints=both)) == [("error", "redirect-failed")]
    alone = {"errors": both["errors"]}
    assert kinds(facts(healthy(), tracepoints=alone)) == [("error", "redirect-failed")]


# What was redirected


def redirected(state: TargetState | None, **fields: Any) -> Complaint:
    told = redirect_error(**fields)
    key = (told.target.ifindex, told.target.map_id, told.target.index)
    targets = {} if state is None else {key: state}
    return only(facts(healthy(), tracepoints={"redirect_errors": (told,)}, targets=targets))


def test_a_target_that_is_down_is_to_be_set_up() -> None:
    complaint = redirected(TargetState(replace(DEVICE, name="eth1"), is_up=False), packets=3)
    assert complaint.what == (
        "3 packets were lost: firewall redirected to eth1, and that failed with ENETDOWN"
    )
    assert complaint.cause is not None
    assert complaint.cause.endswith("; now eth1 is down")
    assert complaint.remedy == "ip link set dev eth1 up"


def test_a_target_without_transmission_is_told_before_it_is_said_to_be_down() -> None:
    veth = replace(without("redirect-target", "netdev: NDO_XMIT clear"), kind="veth", name="eth1")
    complaint = redirected(TargetState(veth, is_up=False), error="EOPNOTSUPP")
    assert complaint.cause is not None
    assert complaint.cause.endswith(
        "; now eth1 takes no redirected frames (netdev: NDO_XMIT clear); eth1 is down"
    )
    assert complaint.remedy is not None
    assert complaint.remedy.startswith("attach a program to the veth peer of eth1")


def test_a_frame_that_was_too_long_is_told_with_the_mtu() -> None:
    complaint = redirected(
        TargetState(replace(DEVICE, name="eth1", mtu=1400), is_up=True), error="EMSGSIZE"
    )
    assert complaint.cause is not None
    assert complaint.cause.endswith("; now the MTU of eth1 is 1400, that of eth0 1500")
    assert complaint.remedy == "ip link set dev eth1 mtu 1500"
    larger = TargetState(replace(DEVICE, name="eth1", mtu=9000), is_up=True)
    complaint = redirected(larger, error="EMSGSIZE")
    assert complaint.cause is not None
    assert complaint.cause.endswith("; now nothing is seen to be wrong with eth1")
    assert complaint.remedy is None


def test_an_interface_that_is_gone_is_said_to_be() -> None:
    complaint = redirected(TargetState(is_gone=True), error="EINVAL")
    assert complaint.cause is not None
    assert complaint.cause.endswith("; now there is no interface with index 3")


def test_what_a_root_redirects_may_be_of_any_of_its_programs() -> None:
    members = (Member(program(41, "first"), (0,)), Member(program(42, "second"), (1,)))
    told = replace(redirect_error(), program="xdpkit_root", last_seen=RECENTLY)
    ill = hook(*members, on_hook=program(40, "xdpkit_root", root=Root(40, 5, 8, 6)))
    complaint = only(facts(ill, tracepoints={"redirect_errors": (told,)}))
    assert "one of the programs of the RX queues redirected to eth1" in complaint.what
    assert complaint.program == ""


def test_a_map_without_the_entry_is_said_to_have_none() -> None:
    told = replace(redirect_error(), target=Target("devmap", "entry 4", 0, 9, 4))
    complaint = only(
        facts(
            healthy(),
            tracepoints={"redirect_errors": (told,)},
            targets={(0, 9, 4): TargetState(has_entry=False)},
        )
    )
    assert complaint.cause is not None
    assert complaint.cause.endswith("; now the map with id 9 has no entry 4")


def test_what_is_well_by_now_is_said_to_be() -> None:
    complaint = redirected(TargetState(replace(DEVICE, name="eth1"), is_up=True))
    assert complaint.severity is Severity.ERROR
    assert complaint.cause is not None
    assert complaint.cause.endswith("; now nothing is seen to be wrong with eth1")


def test_redirects_of_a_program_that_left_are_only_mentioned() -> None:
    told = replace(redirect_error(), program="before", program_id=12)
    complaint = only(facts(healthy(), tracepoints={"redirect_errors": (told,)}))
    assert complaint.severity is Severity.NOTE
    assert complaint.remedy is None


def test_copies_of_one_program_are_told_of_together() -> None:
    copies = tuple(
        replace(redirect_error(packets=number), program_id=number, last_seen=RECENTLY)
        for number in (1, 2, 3, 40)
    )
    complaint = only(facts(healthy(), tracepoints={"redirect_errors": copies}))
    assert complaint.severity is Severity.ERROR
    assert complaint.what.startswith("46 packets were lost: firewall redirected to eth1")
    assert complaint.evidence == (
        "tracepoint xdp_redirect_err: 46 packets by program 40, 3, 2, 1, last seen 1 min ago",
    )


def test_many_targets_are_one_complaint_with_some_of_their_names() -> None:
    errors = tuple(
        replace(redirect_error(error="EINVAL"), target=Target("interface", f"interface {n}", n))
        for n in range(100, 140)
    )
    gone = {(n, 0, 0): TargetState(is_gone=True) for n in range(100, 140)}
    complaint = only(facts(healthy(), tracepoints={"redirect_errors": errors}, targets=gone))
    assert complaint.what == (
        "40 packets were lost: firewall redirected to interface 100, interface 101, interface 102,"
        " interface 103, and 36 more, and that failed with EINVAL"
    )
    assert complaint.cause is not None
    assert complaint.cause.endswith("there is no interface with index 103; and 36 more")


def test_targets_of_a_program_that_left_are_one_note() -> None:
    errors = tuple(
        replace(
            redirect_error(error="EINVAL"),
            program="before",
            program_id=n,
            target=Target("interface", f"interface {n}", n),
        )
        for n in range(100, 140)
    )
    complaint = only(facts(healthy(), tracepoints={"redirect_errors": errors}))
    assert (complaint.severity, complaint.packets) == (Severity.NOTE, 40)


def test_targets_are_told_apart_where_their_state_differs() -> None:
    first, second, third = (
        replace(redirect_error(packets=n), target=Target("devmap", f"eth{n}", n, 9, n))
        for n in (5, 6, 7)
    )
    down = {
        (each.target.ifindex, 9, each.target.index): TargetState(
            replace(DEVICE, name=each.target.name), is_up=each is first
        )
        for each in (first, second, third)
    }
    errors = {"redirect_errors": (first, second, third)}
    found = diagnose(facts(healthy(), tracepoints=errors, targets=down))
    both, fine = found.complaints
    assert both.what.startswith("13 packets were lost: firewall redirected to eth7, eth6, and")
    assert both.remedy == "ip link set dev eth7 up; ip link set dev eth6 up"
    assert both.evidence == ("tracepoint xdp_redirect_err: 13 packets by program 40, map 9",)
    assert fine.what.startswith("5 packets were lost: firewall redirected to eth5, and")
    assert fine.remedy is None


def test_what_was_mended_is_a_warning_for_an_hour_and_then_a_note() -> None:
    fine = TargetState(replace(DEVICE, name="eth1"), is_up=True)

    def seen(seconds: int) -> Complaint:
        told = replace(redirect_error(), last_seen=NOW - seconds * SECOND)
        targets = {(3, 0, 0): fine}
        found = facts(healthy(), tracepoints={"redirect_errors": (told,)}, targets=targets)
        return only(replace(found, snapshot=replace(found.snapshot, taken_at=NOW)))

    assert seen(59).severity is Severity.ERROR
    assert seen(60).severity is Severity.WARNING
    assert seen(3599).severity is Severity.WARNING
    mended = seen(3600)
    assert mended.severity is Severity.NOTE
    # It is set up already: what the errno means in general does not help.
    assert mended.remedy is None
    assert mended.evidence == (
        "tracepoint xdp_redirect_err: 1 packet by program 40, last seen 1 h ago",
    )
    assert mended.to_dict()["last_seen"] == (AT - timedelta(hours=1)).isoformat()


def test_what_is_about_the_frame_is_not_mended_by_a_target_that_is_well() -> None:
    fine = TargetState(replace(DEVICE, name="eth1"), is_up=True)
    complaint = redirected(fine, error="EOVERFLOW")
    assert complaint.severity is Severity.ERROR
    assert complaint.cause is not None
    assert "; now" not in complaint.cause


def test_a_full_queue_is_not_mended_by_an_entry_that_is_there() -> None:
    told = replace(
        redirect_error(error="ENOBUFS"),
        target=Target("xskmap", "queue 3", 0, 9, 3),
        last_seen=LONG_AGO,
        program_id=40,
    )
    found = facts(
        healthy(),
        tracepoints={"redirect_errors": (told,)},
        targets={(0, 9, 3): TargetState(has_entry=True)},
    )
    assert only(found).severity is Severity.ERROR


def test_a_redirect_without_a_target_is_said_to_have_none() -> None:
    told = replace(redirect_error(error="EBADRQC"), target=Target("", "none"))
    complaint = only(facts(healthy(), tracepoints={"redirect_errors": (told,)}))
    assert complaint.what == (
        "1 packet was lost: firewall returned XDP_REDIRECT, and the redirect failed (EBADRQC)"
    )
    assert complaint.remedy == "return what these helpers return"


def test_targets_that_were_too_many_are_said_to_be() -> None:
    told = replace(redirect_error(error="EINVAL"), target=Target("", "other"))
    complaint = only(facts(healthy(), tracepoints={"redirect_errors": (told,)}))
    assert complaint.what.endswith("redirected to other targets, and that failed with EINVAL")
    assert complaint.evidence[1] == (
        "each CPU tells 32 targets apart for each program and errno; these are the others"
    )
    named = replace(told, target=Target("interface", "other", 7))
    complaint = only(facts(healthy(), tracepoints={"redirect_errors": (named,)}))
    assert complaint.what.endswith("redirected to other, and that failed with EINVAL")


def test_a_strange_name_is_told_so_that_a_shell_takes_it() -> None:
    name = "a\x1b'\u00e9\\"
    told = replace(redirect_error(), target=Target("interface", name, 3))
    found = facts(
        healthy(),
        tracepoints={"redirect_errors": (told,)},
        targets={(3, 0, 0): TargetState(replace(DEVICE, name=name), is_up=False)},
    )
    complaint = only(replace(found, netns="x y"))
    assert complaint.remedy == (
        "nsenter '--net=/run/netns/x y' ip link set dev $'a\\x1b\\x27\u00e9\\x5c' up"
    )


def test_frames_that_were_not_transmitted_are_told_with_the_interface() -> None:
    dropped = replace(transmit(HERE, sent=7, dropped=2), where=HERE, error="ENETDOWN")
    complaint = only(facts(healthy(), tracepoints={"transmits": (dropped,)}))
    assert (complaint.severity, complaint.kind) == (Severity.WARNING, "transmit-drops")
    assert complaint.what.startswith("2 packets were lost: eth0 did not take")
    assert complaint.evidence == ("7 were taken",)
    assert complaint.packets == 2
    fine = transmit(HERE, sent=7, dropped=0)
    assert kinds(facts(healthy(), tracepoints={"transmits": (fine,)})) == []


def veth_that_sends() -> HookFacts:
    veth = replace(without("action-tx", "the peer has no native program"), kind="veth")
    return hook(Member(program(), code=(returning(3),)), device=veth)


SENT_BACK = replace(transmit(None, sent=7, dropped=2), where=HERE, last_seen=RECENTLY)


def test_what_could_not_be_sent_back_is_told_once_with_the_program() -> None:
    sent = report(counted(40, {0: Counts((0, 0, 0, 5, 0, 0), None)}))
    found = facts(
        veth_that_sends(),
        tracepoints={"transmits": (SENT_BACK,)},
        snapshot={"returned": (sent,), "drivers": (driver("tx_errors", 5),)},
    )
    complaint = only(found)
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "transmit-drops")
    assert complaint.what == (
        "2 packets were lost: firewall returned XDP_TX, and eth0 could not send them back"
    )
    assert complaint.program == "firewall"
    assert complaint.cause == "the peer has no native program"
    assert complaint.remedy is not None
    assert complaint.remedy.startswith("attach a program to the veth peer of eth0")
    assert complaint.evidence == (
        "7 were taken, last seen 1 min ago",
        "fw.c:11 returns XDP_TX",
    )


def test_what_could_not_be_sent_back_before_is_not_a_new_programs_fault() -> None:
    dropped = replace(SENT_BACK, last_seen=LONG_AGO)
    complaint = only(facts(veth_that_sends(), tracepoints={"transmits": (dropped,)}))
    assert complaint.severity is Severity.NOTE
    assert complaint.what == "2 packets were lost: eth0 could not send them back (XDP_TX)"
    assert complaint.remedy is None
    able = hook(Member(program(), code=(returning(3),)))
    complaint = only(facts(able, tracepoints={"transmits": (SENT_BACK,)}))
    assert complaint.severity is Severity.WARNING


def test_a_driver_is_not_asked_about_frames_whose_transmission_was_counted() -> None:
    dropped = replace(transmit(HERE, sent=7, dropped=2), where=HERE)
    snapshot = {"drivers": (driver("xmit_errors", 2),)}
    found = facts(healthy(), snapshot=snapshot, tracepoints={"transmits": (dropped,)})
    assert kinds(found) == [("warning", "transmit-drops")]


def test_a_cpumap_tells_full_queues_from_missing_memory() -> None:
    found = {"cpumaps": (cpumap(1, enqueued=9, queue_full=2, no_memory=1),)}
    assert kinds(facts(with_cpumap(), tracepoints=found)) == [
        ("warning", "cpumap-full"),
        ("warning", "cpumap-no-memory"),
    ]


def with_cpumap() -> HookFacts:
    cpus = RedirectMap(9, "cpumap", (1,))
    return hook(Member(program(), code=(redirecting("cpus", redirects={"cpus": cpus}),)))


def test_a_cpumap_of_others_does_not_make_ill() -> None:
    found = {"cpumaps": (cpumap(1, queue_full=2),)}
    assert kinds(facts(healthy(), tracepoints=found)) == [("note", "cpumap-full")]
    asked = frozenset({"eth0"})
    assert kinds(facts(healthy(), tracepoints=found, only=asked)) == []
    assert kinds(facts(with_cpumap(), tracepoints=found, only=asked)) == [
        ("warning", "cpumap-full")
    ]
    summary = ProgramSummary(40, "firewall", jited=True, maps=(MapSummary(9, "cpus"),))
    by_map = hook(Member(program(program=summary), code=(returning(2),)))
    assert kinds(facts(by_map, tracepoints=found)) == [("warning", "cpumap-full")]


def test_a_full_cpumap_is_told_once_where_redirects_failed_for_it() -> None:
    told = replace(redirect_error(error="ENOSPC"), target=Target("cpumap", "cpu 1", 0, 9, 1))
    found = {"cpumaps": (cpumap(1, queue_full=2),), "redirect_errors": (told,)}
    assert kinds(facts(with_cpumap(), tracepoints=found)) == [("error", "redirect-failed")]
    found = {"cpumaps": (cpumap(2, queue_full=2),), "redirect_errors": (told,)}
    assert ("warning", "cpumap-full") in kinds(facts(with_cpumap(), tracepoints=found))


def driver(event: str, *values: int) -> DriverCounts:
    each = tuple(DriverCount(event, queue, value) for queue, value in enumerate(values))
    return DriverCounts(HERE, "veth", each, {})


def test_a_drivers_number_is_a_warning_as_long_as_it_can_grow() -> None:
    veth = without("action-tx", "the peer has no native program")
    sends = hook(Member(program(), code=(returning(3),)), device=veth)
    snapshot = {"drivers": (driver("tx_errors", 2, 3),)}
    complaint = only(facts(sends, snapshot=snapshot))
    assert (complaint.severity, complaint.kind) == (Severity.WARNING, "driver-errors")
    assert complaint.what.startswith("5 packets were lost by eth0 since its driver began to count")
    assert complaint.cause == "the peer has no native program"
    assert kinds(facts(healthy(), snapshot=snapshot)) == [("note", "driver-errors")]
    unwatched = {**snapshot, "installed": None}
    assert ("note", "driver-errors") in kinds(facts(healthy(), snapshot=unwatched))


def test_a_driver_is_not_asked_about_what_tracepoints_told() -> None:
    snapshot = {"drivers": (driver("redirect_errors", 4),)}
    tracepoints = {"redirect_errors": (redirect_error(packets=4),)}
    assert kinds(facts(healthy(), snapshot=snapshot, tracepoints=tracepoints)) == [
        ("error", "redirect-failed")
    ]


# What is on the hooks


def verdict(outcome: Outcome, answer: Answer, why: str) -> Verdict:
    needed = Requirement("action-tx", (Origin("firewall", 1, "firewall", "fw.c:41"),))
    return Verdict(needed, Finding("action-tx", answer, why), "eth0", outcome, why, "do this")


OFFERED = verdict(Outcome.ACCEPTED, Answer.YES, "netdev: BASIC set")
REFUSED = verdict(Outcome.REFUSED, Answer.NO, "netdev: BASIC clear")


def test_findings_that_got_worse_are_told_in_the_words_of_negotiation() -> None:
    attached = program(record=record(negotiation=negotiated(OFFERED)))
    complaint = only(facts(hook(Member(attached, now=negotiated(REFUSED)))))
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "findings-changed")
    assert complaint.what == (
        "firewall would not be accepted on eth0 now as it was when it was attached: it needs action"
        " XDP_TX at fw.c:41, and eth0 does not offer that (netdev: BASIC clear)"
    )
    assert complaint.remedy == "do this"
    degraded = replace(REFUSED, outcome=Outcome.DEGRADED)
    found = facts(hook(Member(attached, now=negotiated(degraded))))
    assert kinds(found) == [("warning", "findings-changed")]


def test_a_target_that_came_later_is_said_to_have() -> None:
    attached = program(record=record(negotiation=negotiated(OFFERED)))
    target = replace(REFUSED, requirement=Requirement("redirect-target", map="ports"))
    now = negotiated(OFFERED, replace(target, device="eth5"))
    complaint = only(facts(hook(Member(attached, now=now))))
    assert complaint.what.startswith(
        "firewall would not be accepted on eth0 now that eth5 is in ports: frames are"
    )


def test_findings_that_got_better_or_stayed_are_no_news() -> None:
    attached = program(record=record(negotiation=negotiated(REFUSED)))
    assert kinds(facts(hook(Member(attached, now=negotiated(OFFERED))))) == []
    attached = program(record=record(negotiation=negotiated(OFFERED)))
    assert kinds(facts(hook(Member(attached, now=negotiated(OFFERED))))) == []


def test_what_was_forced_is_only_mentioned() -> None:
    attached = program(record=record(negotiation=negotiated(REFUSED)))
    complaint = only(facts(hook(Member(attached, now=negotiated(REFUSED)))))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "forced")


def test_generic_mode_is_a_warning_where_native_mode_would_do() -> None:
    attached = program(mode=Mode.GENERIC)
    would_do = Member(attached, natively=negotiated(OFFERED))
    complaint = only(facts(hook(would_do)))
    assert (complaint.severity, complaint.kind) == (Severity.WARNING, "generic-mode")
    assert complaint.remedy == (
        "xdpkit detach eth0 && xdpkit attach --program firewall --mode native eth0 /srv/fw.o"
    )


def test_generic_mode_is_fine_where_native_mode_would_not_do() -> None:
    attached = program(mode=Mode.GENERIC)
    assert kinds(facts(hook(Member(attached, natively=negotiated(REFUSED))))) == []
    lacking = without("mode-native", "driver r8169 has no native XDP")
    would_do = Member(attached, natively=negotiated(OFFERED))
    assert kinds(facts(hook(would_do, device=lacking))) == []


def test_an_interpreted_program_is_to_be_loaded_anew() -> None:
    summary = ProgramSummary(40, "firewall", jited=False)
    # For some queues and for all others: it is one program.
    members = (Member(program(program=summary), (0,)), Member(program(program=summary)))
    complaint = only(facts(hook(*members)))
    assert (complaint.severity, complaint.kind) == (Severity.WARNING, "interpreted")


def stages(*filled: int, loaded_with: tuple[int, ...] = ()) -> HookFacts:
    array = ProgArray(9, 4, frozenset(filled), frozenset(loaded_with))
    return hook(Member(program(), code=(tail_calling(1, arrays={"stages": array}),)))


def test_a_slot_that_was_emptied_since_the_load_is_an_error() -> None:
    complaint = only(facts(stages(3, loaded_with=(1, 3))))
    assert (complaint.severity, complaint.kind) == (Severity.ERROR, "emptied-array")
    assert complaint.what == "the program array stages of firewall on eth0 has no program in slot 1"
    assert complaint.cause == (
        "the tail call at fw.c:13 goes nowhere, and firewall goes on behind it; its object file"
        " fills that slot when it is loaded"
    )
    assert complaint.evidence == ("map 9: 1 of 4 slots are used",)


def test_an_array_without_any_program_is_a_warning_and_a_free_slot_a_note() -> None:
    assert kinds(facts(stages())) == [("warning", "emptied-array")]
    assert kinds(facts(stages(3))) == [("note", "emptied-array")]
    assert kinds(facts(stages(1))) == []


def test_a_change_that_waits_is_mentioned_and_one_that_was_forgotten_is_not_well() -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    waiting = program(record=record(revert_at=now + 3600 * SECOND))
    complaint = only(facts(hook(Member(waiting))))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "revert-pending")
    assert complaint.remedy == "to keep it: xdpkit confirm eth0"
    forgotten = program(record=record(revert_at=now - 3600 * SECOND))
    assert kinds(facts(hook(Member(forgotten)))) == [("warning", "revert-missed")]


def test_programs_of_other_tools_are_mentioned() -> None:
    foreign = program(owner=Owner.UNKNOWN, record=None)
    assert kinds(facts(hook(Member(foreign)))) == [("note", "foreign-program")]
    components = (Component(21, "first"), Component(22, "second"))
    joined = program(
        name="xdp_dispatcher",
        owner=Owner.LIBXDP,
        record=None,
        dispatcher=Dispatcher(2, False, components, None),
    )
    complaint = only(facts(hook(Member(joined))))
    assert complaint.kind == "libxdp-dispatcher"
    assert "with 2 programs" in complaint.what


def test_a_program_that_could_not_be_looked_at_is_nobodys() -> None:
    hidden = program(
        owner=Owner.UNKNOWN, record=None, program=ProgramSummary(40), note="names cannot be seen"
    )
    assert kinds(facts(hook(Member(hidden)))) == []


def test_a_newer_record_is_mentioned() -> None:
    newer = program(record=replace(record(), unknown=True))
    assert kinds(facts(hook(Member(newer)))) == [("note", "newer-record")]


def counters(**fields: Any) -> CounterReport:
    return report(counted(40), **fields)


def test_counters_that_are_off_are_mentioned_with_the_command() -> None:
    found = facts(healthy(), snapshot={"returned": (counters(is_enabled=False),)})
    complaint = only(replace(found, pin_root="/mnt/b p"))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "counters-off")
    assert complaint.remedy == "xdpkit counters enable --pin-root '/mnt/b p' eth0"


def test_a_command_is_told_so_that_a_shell_takes_it() -> None:
    ill = healthy()
    strange = replace(ill.status.interface, name="-a\x07", netns="x y")
    found = facts(
        replace(ill, status=replace(ill.status, interface=strange)),
        snapshot={"returned": (counters(is_enabled=False),)},
    )
    assert only(found).remedy == "xdpkit counters enable -n 'x y' -- $'-a\\x07'"


def test_what_is_not_counted_and_what_met_no_program_is_mentioned() -> None:
    returned = counters(
        not_counted=("What foreign (id 9) returns is not counted: another tool loaded it.",),
        no_program=without_program(q3=(7, 420)),
    )
    found = facts(healthy(), snapshot={"returned": (returned,)})
    assert kinds(found) == [("note", "no-program"), ("note", "not-counted")]
    assert only(found, kind="no-program").what == (
        "7 packets of RX queue 3 of eth0 met no program, and passed"
    )


# The host


def test_a_kernel_that_interprets_programs_is_told_how_to_compile_them() -> None:
    complaint = only(facts(healthy(), has_jit=False))
    assert (complaint.kind, complaint.remedy) == ("jit-off", "sysctl net.core.bpf_jit_enable=1")
    assert kinds(facts(healthy(), has_jit=None)) == []


def test_what_killed_commands_left_is_to_be_cleaned_up() -> None:
    left = (
        Cleaned("a detach that was killed", "/sys/fs/bpf/xdpkit/4-2/link", "eth0"),
        Cleaned("what is not of xdpkit's making", "/sys/fs/bpf/xdpkit/x", error="a stranger's"),
    )
    found = facts(healthy(), leftovers=left)
    assert kinds(found) == [("warning", "stale-state"), ("note", "stale-state")]
    first, second = diagnose(found).complaints
    assert first.what == "there is left on eth0: a detach that was killed"
    assert first.remedy == "xdpkit clean"
    assert second.remedy is None
    # Of another interface, where some were named.
    named = replace(found, only=frozenset({"eth7"}), hooks=())
    assert kinds(named) == [("note", "stale-state"), ("note", "stale-state")]


def test_pins_of_interfaces_that_are_gone_are_one_note() -> None:
    left = tuple(
        Cleaned("pins of an interface that is gone", f"/sys/fs/bpf/xdpkit/{number}-2")
        for number in range(100)
    )
    complaint = only(facts(healthy(), leftovers=left))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "stale-state")
    assert complaint.what == "there is left, 100 times: pins of an interface that is gone"
    assert complaint.evidence[-1] == "and 96 more"


def test_what_a_killed_reader_left_is_told_once() -> None:
    folder = "/sys/fs/bpf/xdpkit/tap-4-2"
    left = (
        Cleaned("copies that report frames to nobody", None, "eth0"),
        Cleaned("a reader", folder),
    )
    found = facts(healthy(), unread={"eth0": folder}, leftovers=left)
    complaint = only(found)
    assert (complaint.severity, complaint.kind) == (Severity.WARNING, "killed-reader")
    assert complaint.what == "the programs on eth0 report frames to nobody"


def test_without_the_resident_programs_nobody_knows_what_was_lost() -> None:
    complaint = only(facts(healthy(), snapshot={"installed": None}))
    assert complaint.kind == "monitor-not-installed"
    assert complaint.remedy == "xdpkit monitor install"


def test_what_cannot_be_read_is_not_taken_for_not_counted() -> None:
    unread = {"installed": None, "unread": "this process lacks CAP_SYS_ADMIN"}
    complaint = only(facts(healthy(), snapshot=unread))
    assert (complaint.severity, complaint.kind) == (Severity.NOTE, "monitor-not-read")
    assert complaint.cause == "this process lacks CAP_SYS_ADMIN"
    assert complaint.remedy is None
    complaint = only(facts(healthy(), snapshot=unread, is_hidden=True))
    assert complaint.remedy is not None
    assert "xdpkit -n NAME" in complaint.remedy


def test_what_could_not_be_counted_is_everybodys() -> None:
    counted = {"other": 5, "missed": 1}
    notes = [("note", "errors-not-told-apart"), ("note", "errors-missed")]
    assert kinds(facts(healthy(), tracepoints=counted, netns="blue")) == notes
    assert kinds(facts(healthy(), tracepoints=counted, only=frozenset({"eth0"}))) == notes


def test_what_the_watching_could_not_do_is_said() -> None:
    found = facts(
        healthy(),
        snapshot={"installed": INSTALLED},
        tracepoints={"other": 5, "missed": 1, "attach_failures": {"too large": 2}},
    )
    assert kinds(found) == [
        ("warning", "errors-not-told-apart"),
        ("warning", "errors-missed"),
        ("note", "tracepoints-missing"),
        ("note", "attach-refused"),
    ]
    assert only(found, kind="errors-missed").what == "1 error could not be counted"


def test_errors_of_other_namespaces_are_mentioned_unless_interfaces_were_named() -> None:
    there = {"errors": (error(snapshots.THERE, packets=3),)}
    complaint = only(facts(healthy(), tracepoints=there))
    assert complaint.what == "3 packets were lost in network namespace blue"
    assert complaint.remedy == "xdpkit doctor -n blue"
    gone = facts(
        healthy(), tracepoints={"errors": (error(replace(snapshots.THERE, netns="gone:[57]")),)}
    )
    assert only(gone).remedy is None
    hostile = replace(snapshots.THERE, netns="a; reboot")
    hostile_there = facts(healthy(), tracepoints={"errors": (error(hostile),)}, pin_root="/mnt/b")
    complaint = only(hostile_there)
    assert complaint.remedy == "xdpkit doctor -n 'a; reboot' --pin-root /mnt/b"
    found = facts(healthy(), tracepoints=there, only=frozenset({"eth0"}))
    assert kinds(found) == []


def test_only_the_interfaces_that_were_named_are_told_of() -> None:
    elsewhere = {"errors": (wrong(42, where=Where("", "eth7", 9)),)}
    assert kinds(facts(healthy(), tracepoints=elsewhere)) == [("note", "invalid-action")]
    found = facts(healthy(), tracepoints=elsewhere, only=frozenset({"eth0"}))
    assert kinds(found) == []


# What could not be seen


def test_what_has_one_cause_is_one_line() -> None:
    why = "this process lacks CAP_SYS_ADMIN"
    unseen = [
        ("not all of eth0 could be looked at", f"names cannot be looked up: {why}"),
        ("what eth0 offers could not be looked at", why),
        ("what eth1 offers could not be looked at", why),
        ("what eth2 offers could not be looked at", "KeyError: 3"),
    ]
    notes = (f"The counters of eth0 cannot be read: {why}.", "The driver of eth0 is asleep.")
    snapshot = replace(facts().snapshot, notes=notes)
    assert folded(unseen, snapshot) == (
        f"{why}: not all of eth0 could be looked at (names cannot be looked up); what eth0 offers"
        " could not be looked at; what eth1 offers could not be looked at; the counters of eth0"
        " cannot be read",
        "what eth2 offers could not be looked at: KeyError: 3",
        "The driver of eth0 is asleep",
    )
    hidden = replace(snapshot, notes=("What goes wrong cannot be read: hidden.",), unread="hidden")
    assert folded([], hidden) == ("what goes wrong cannot be read: hidden",)


# As values


def test_a_diagnosis_is_plain_data() -> None:
    needs = negotiated(OFFERED, replace(OFFERED, requirement=Requirement("helper:redirect_map")))
    ill = hook(
        Member(program(record=record(negotiation=needs)), code=(returning(42),)),
    )
    data: Any = diagnose(facts(ill, tracepoints={"errors": (wrong(42),)})).to_dict()
    assert data["well"] is False
    assert [each["needs"] for each in data["attached"]] == [["XDP_TX"]]
    assert [each["severity"] for each in data["complaints"]] == ["error"]
    assert [each["kind"] for each in data["complaints"]] == ["invalid-action"]
    assert [each["packets"] for each in data["complaints"]] == [12]
    assert [each["last_seen"] for each in data["complaints"]] == ["2026-01-02T03:03:05+00:00"]


def test_what_was_looked_at_depends_on_what_there_was() -> None:
    assert diagnose(facts(has_jit=None, snapshot={"installed": None})).looked_at == (
        "which interfaces have programs: none",
        "what killed commands may have left",
    )
    everything = facts(
        healthy(), snapshot={"returned": (counters(),), "drivers": (driver("tx_errors", 0),)}
    )
    assert len(diagnose(everything).looked_at) == 6


def test_an_interface_without_a_program_is_idle() -> None:
    assert diagnose(facts(hook())).idle == ("eth0",)


def test_how_long_ago_it_was_is_told_roughly() -> None:
    told = [ago(seconds) for seconds in (0.4, 1, 59, 60, 7199, 86_400, 200_000, 9**8)]
    assert told == [
        "just now",
        "1 s ago",
        "59 s ago",
        "1 min ago",
        "1 h ago",
        "1 day ago",
        "2 days ago",
        "498 days ago",
    ]
