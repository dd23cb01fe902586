# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.negotiation.cases import (
    ALL_ACTIONS,
    BIG_MTU,
    DROP_ONLY,
    FULL,
    NOT_NATIVE,
    UNKNOWN,
    VETH_TARGET,
    at,
    findings,
    program,
)
from xdpkit.capabilities import (
    CAPABILITIES,
    Answer,
    Device,
    Finding,
    Precondition,
)
from xdpkit.negotiation import Negotiation, Outcome, Policy, Target, Verdict, negotiate
from xdpkit.requirements import Requirement

ACCEPTED, DEGRADED, REFUSED = Outcome.ACCEPTED, Outcome.DEGRADED, Outcome.REFUSED

OPTIONAL_HASH = Requirement("rx-hash", optional=True)
TAKES_FRAGS = Requirement("frags", optional=True)


def verdict_on(negotiation: Negotiation, capability: str) -> Verdict:
    (found,) = [
        verdict for verdict in negotiation.verdicts if verdict.requirement.capability == capability
    ]
    return found


@pytest.mark.parametrize(
    ("need", "device", "default", "strict"),
    [
        ("action-tx", FULL, ACCEPTED, ACCEPTED),
        ("action-tx", DROP_ONLY, REFUSED, REFUSED),
        ("action-tx", NOT_NATIVE, REFUSED, REFUSED),
        ("action-tx", UNKNOWN, ACCEPTED, REFUSED),
        ("action-drop", DROP_ONLY, ACCEPTED, ACCEPTED),
        ("action-aborted", DROP_ONLY, ACCEPTED, ACCEPTED),
        ("action-any", FULL, ACCEPTED, REFUSED),
        ("action-any", DROP_ONLY, DEGRADED, REFUSED),
        ("action-any", UNKNOWN, ACCEPTED, REFUSED),
        ("action-code:42", FULL, DEGRADED, DEGRADED),
        ("action-code:42", DROP_ONLY, DEGRADED, DEGRADED),
        ("port-index", UNKNOWN, ACCEPTED, REFUSED),
        # What xdpkit offers, no driver has in its list.
        ("port-index", DROP_ONLY, ACCEPTED, REFUSED),
        ("context-field:rx_colour", FULL, REFUSED, REFUSED),
        ("rx-hash", FULL, ACCEPTED, ACCEPTED),
        ("rx-hash", DROP_ONLY, REFUSED, REFUSED),
        (OPTIONAL_HASH, DROP_ONLY, DEGRADED, DEGRADED),
        (OPTIONAL_HASH, UNKNOWN, ACCEPTED, DEGRADED),
        (TAKES_FRAGS, FULL, ACCEPTED, ACCEPTED),
        (TAKES_FRAGS, DROP_ONLY, ACCEPTED, ACCEPTED),
        (TAKES_FRAGS, UNKNOWN, ACCEPTED, ACCEPTED),
        ("frags", NOT_NATIVE, REFUSED, REFUSED),
        ("helper:redirect_map", FULL, ACCEPTED, REFUSED),
        ("kfunc:bpf_xdp_metadata_rx_hash", DROP_ONLY, ACCEPTED, REFUSED),
    ],
)
def test_a_verdict_follows_from_the_answer_and_the_policy(
    need: str | Requirement, device: Device, default: Outcome, strict: Outcome
) -> None:
    needs = program(need)
    (name,) = [item.capability for item in needs]
    assert verdict_on(negotiate(needs, device), name).outcome is default
    found = negotiate(needs, device, policy=Policy.STRICT)
    assert verdict_on(found, name).outcome is strict


def test_report_only_says_the_same_and_stops_nothing() -> None:
    needs = program("action-tx", "action-code:42")
    reported = negotiate(needs, DROP_ONLY, policy=Policy.REPORT)
    assert reported.verdicts == negotiate(needs, DROP_ONLY).verdicts
    assert reported.outcome is REFUSED
    assert reported.is_allowed


def test_every_verdict_is_given_not_the_first_failure() -> None:
    found = negotiate(program("action-tx", "action-redirect", "action-drop"), DROP_ONLY)
    assert [verdict.requirement.capability for verdict in found.refused] == [
        "action-tx",
        "action-redirect",
    ]
    assert verdict_on(found, "action-drop").outcome is ACCEPTED


def test_the_outcome_is_the_worst_of_all() -> None:
    assert negotiate(program("action-drop"), FULL).outcome is ACCEPTED
    assert negotiate(program("action-drop", "action-code:42"), FULL).outcome is DEGRADED
    assert negotiate(program("action-code:42", "action-tx"), DROP_ONLY).outcome is REFUSED


def test_an_unknown_code_is_degraded_with_its_line() -> None:
    (verdict,) = negotiate(program("action-code:42"), FULL).degraded
    assert str(verdict.requirement.origin) == "fw.c:10"
    assert verdict.requirement.label == "may return 42"
    assert verdict.why == "not an action: counted as invalid and dropped"


def test_any_value_names_the_actions_that_are_missing() -> None:
    verdict = verdict_on(negotiate(program("action-any"), DROP_ONLY), "action-any")
    assert verdict.why == "without XDP_TX, XDP_REDIRECT (file old.json: not listed)"


def test_declared_actions_make_any_value_pass_strictly_but_degraded() -> None:
    needs = program(Requirement("action-any", optional=True))
    verdict = verdict_on(negotiate(needs, FULL, policy=Policy.STRICT), "action-any")
    assert verdict.outcome is DEGRADED


def test_a_finding_of_the_device_comes_before_one_of_this_kernel() -> None:
    name = "helper:redirect_map"
    here = {name: Finding(name, Answer.NO, "probe: EINVAL")}
    there = replace(FULL, findings={**FULL.findings, name: Finding(name, Answer.YES, "there")})
    assert verdict_on(negotiate(program(name), FULL, kernel=here), name).outcome is REFUSED
    assert verdict_on(negotiate(program(name), there, kernel=here), name).outcome is ACCEPTED


def test_a_kernel_without_links_refuses() -> None:
    kernel = {"link": Finding("link", Answer.NO, "probe: BPF_LINK_CREATE: EINVAL")}
    assert negotiate(program("action-drop"), FULL, kernel=kernel).outcome is REFUSED
    assert negotiate(program("action-drop"), FULL).outcome is ACCEPTED


class TestModes:
    def test_a_driver_without_native_mode_is_refused_with_generic_mode_as_remedy(self) -> None:
        found = negotiate(program("action-tx"), NOT_NATIVE)
        assert verdict_on(found, "mode-native").outcome is REFUSED
        assert found.remedies == (
            "attach in generic mode (--mode generic), at the cost of an skb per packet",
        )

    def test_generic_mode_offers_every_action_on_any_device(self) -> None:
        needs = program(*(f"action-{action}" for action in ALL_ACTIONS), "adjust-meta")
        for device in (NOT_NATIVE, DROP_ONLY, UNKNOWN, FULL):
            found = negotiate(needs, device, mode="generic", policy=Policy.STRICT)
            assert found.outcome is ACCEPTED, found.refused

    def test_generic_mode_has_no_hints_so_it_is_no_remedy_for_them(self) -> None:
        needs = program("rx-hash", "action-tx")
        assert negotiate(needs, NOT_NATIVE, mode="generic").outcome is REFUSED
        assert negotiate(needs, NOT_NATIVE).remedies == ()

    def test_a_profile_that_lists_actions_need_not_say_that_they_are_native(self) -> None:
        found = negotiate(program("action-drop"), DROP_ONLY, policy=Policy.STRICT)
        assert verdict_on(found, "mode-native").outcome is ACCEPTED

    def test_what_the_driver_offers_says_nothing_about_offload(self) -> None:
        needs = program("action-tx")
        found = negotiate(needs, FULL, mode="offload")
        assert verdict_on(found, "action-tx").answer is Answer.UNKNOWN

    def test_native_mode_is_the_remedy_where_offload_is_not_offered(self) -> None:
        device = replace(
            FULL,
            findings={
                **FULL.findings,
                "mode-offload": Finding("mode-offload", Answer.NO, "netdev: HW_OFFLOAD clear"),
            },
        )
        found = negotiate(program("action-tx"), device, mode="offload")
        assert found.remedies == ("attach in native mode (--mode native)",)


class TestTargets:
    REDIRECT = Requirement("redirect-devmap", origins=at(41), map="tx_ports")

    def test_a_target_that_cannot_transmit_refuses_the_redirect(self) -> None:
        found = negotiate(program(self.REDIRECT), FULL, targets=[Target(VETH_TARGET)])
        verdict = verdict_on(found, "redirect-target")
        assert (verdict.outcome, verdict.device) == (REFUSED, "veth1")
        assert verdict.requirement.origins == self.REDIRECT.origins
        assert verdict.remedy == (
            "attach a program to the veth peer of veth1; one that returns XDP_PASS will do"
        )

    def test_it_is_accepted_once_the_target_can_transmit(self) -> None:
        able = replace(
            VETH_TARGET, findings=findings({"redirect-target": Answer.YES}, "netdev: NDO_XMIT")
        )
        assert negotiate(program(self.REDIRECT), FULL, targets=[Target(able)]).outcome is ACCEPTED

    def test_targets_that_nobody_named_are_unknown(self) -> None:
        assert verdict_on(negotiate(program(self.REDIRECT), FULL), "redirect-target").answer is (
            Answer.UNKNOWN
        )
        strict = negotiate(program(self.REDIRECT), FULL, policy=Policy.STRICT)
        assert verdict_on(strict, "redirect-target").outcome is REFUSED
        assert strict.remedies == ("name the interfaces that are redirected to (--target IFACE)",)

    def test_generic_mode_transmits_on_any_interface(self) -> None:
        found = negotiate(
            program(self.REDIRECT), FULL, mode="generic", targets=[Target(VETH_TARGET)]
        )
        assert found.outcome is ACCEPTED

    def test_an_interface_that_is_not_there_transmits_in_no_mode(self) -> None:
        no_answer = findings({"redirect-target": Answer.NO}, "no such interface")
        constant = Requirement("redirect-ifindex", ifindex=77)
        gone = Target(Device("interface 77", findings=no_answer), ifindex=77, is_absent=True)
        for mode in ("native", "generic"):
            found = negotiate(program(constant), FULL, mode=mode, targets=[gone])
            assert verdict_on(found, "redirect-target").outcome is REFUSED
        other = negotiate(program(constant), NOT_NATIVE, targets=[gone])
        assert other.outcome is REFUSED
        assert other.remedies == ()

    def test_each_redirect_is_held_against_the_targets_that_it_goes_to(self) -> None:
        other = Requirement("redirect-devmap", origins=at(50), map="backup")
        constant = Requirement("redirect-ifindex", origins=at(60), ifindex=7)
        targets = [
            Target(VETH_TARGET, map="tx_ports"),
            Target(replace(VETH_TARGET, name="veth2"), ifindex=7),
        ]
        found = negotiate(program(self.REDIRECT, other, constant), FULL, targets=targets)
        transmits = [
            (str(verdict.requirement.origin), verdict.device, verdict.outcome)
            for verdict in found.verdicts
            if verdict.requirement.capability == "redirect-target"
        ]
        assert transmits == [
            ("fw.c:41", "veth1", REFUSED),
            ("fw.c:50", "what is in backup", ACCEPTED),
            ("fw.c:60", "veth2", REFUSED),
        ]

    def test_a_program_with_frags_degrades_where_the_target_takes_none(self) -> None:
        target = replace(
            VETH_TARGET,
            findings=findings(
                {"redirect-target": Answer.YES, "redirect-target-frags": Answer.NO}, "netdev"
            ),
        )
        found = negotiate(program(self.REDIRECT, TAKES_FRAGS), FULL, targets=[Target(target)])
        assert verdict_on(found, "redirect-target-frags").outcome is DEGRADED
        plain = negotiate(program(self.REDIRECT), FULL, targets=[Target(target)])
        assert plain.outcome is ACCEPTED

    BROADCAST = Requirement("redirect-broadcast", origins=at(42), optional=False)

    @pytest.mark.parametrize(
        ("policy", "outcome"),
        [(Policy.DEFAULT, DEGRADED), (Policy.REPORT, DEGRADED), (Policy.STRICT, REFUSED)],
    )
    def test_a_broadcast_of_packets_in_several_buffers_degrades(
        self, policy: Policy, outcome: Outcome
    ) -> None:
        found = negotiate(program(self.BROADCAST, TAKES_FRAGS), FULL, policy=policy)
        verdict = verdict_on(found, "redirect-broadcast-frags")
        assert verdict.outcome is outcome
        assert verdict.requirement.origins == self.BROADCAST.origins
        assert verdict.why == (
            "the kernel copies the first buffer only (xdpf_clone() in net/core/xdp.c), and sends"
            " garbage for the others"
        )
        assert verdict.remedy == "broadcast from a program without frags"

    def test_a_broadcast_of_packets_in_one_buffer_does_not(self) -> None:
        no_frags = replace(FULL, findings=findings({"frags": Answer.NO}, "netdev"))
        for needs, device, mode in (
            (program(self.BROADCAST), FULL, "native"),
            (program(TAKES_FRAGS), FULL, "native"),
            # The driver never gives it such packets.
            (program(self.BROADCAST, TAKES_FRAGS), no_frags, "native"),
            (program(self.BROADCAST, TAKES_FRAGS), FULL, "generic"),
        ):
            found = negotiate(needs, device, mode=mode)
            assert "redirect-broadcast-frags" not in {
                verdict.requirement.capability for verdict in found.verdicts
            }

    def test_redirects_to_cpus_and_sockets_have_no_interface_to_transmit(self) -> None:
        found = negotiate(program("redirect-cpumap", "redirect-xskmap"), UNKNOWN)
        assert not any(
            verdict.requirement.capability == "redirect-target" for verdict in found.verdicts
        )


class TestPreconditions:
    def test_an_mtu_too_large_is_refused_with_both_remedies(self) -> None:
        found = negotiate(program("action-drop"), replace(FULL, preconditions=(BIG_MTU,)))
        (verdict,) = found.refused
        assert verdict.requirement.capability == "precondition:mtu"
        assert verdict.remedy == (
            'lower the MTU of veth1 to 3506, or recompile the program for SEC("xdp.frags")'
        )

    def test_recompiling_is_no_remedy_where_the_driver_takes_no_frags(self) -> None:
        device = replace(
            FULL,
            findings={**FULL.findings, "frags": Finding("frags", Answer.NO, "netdev")},
            preconditions=(BIG_MTU,),
        )
        assert negotiate(program("action-drop"), device).remedies == (BIG_MTU.remedy,)
        # Nor does a program with frags get around the limit there.
        assert negotiate(program("action-drop", TAKES_FRAGS), device).outcome is REFUSED

    def test_frags_waive_the_limit(self) -> None:
        device = replace(FULL, preconditions=(BIG_MTU,))
        assert negotiate(program("action-drop", TAKES_FRAGS), device).outcome is ACCEPTED

    def test_a_limit_among_the_findings_is_held_against_the_mtu(self) -> None:
        limit = Finding("mtu", Answer.YES, "table of drivers", limit=3498)
        device = replace(FULL, findings={**FULL.findings, "mtu": limit})
        assert negotiate(program("action-drop"), replace(device, mtu=3498)).outcome is ACCEPTED
        found = negotiate(program("action-drop"), replace(device, mtu=3499))
        assert found.outcome is REFUSED
        assert found.refused[0].why == ("MTU 3499, at most 3498 without frags (table of drivers)")

    def test_a_precondition_of_another_mode_does_not_matter(self) -> None:
        device = replace(FULL, preconditions=(BIG_MTU,))
        assert negotiate(program("action-drop"), device, mode="generic").outcome is ACCEPTED

    def test_what_is_not_known_passes_unless_strict(self) -> None:
        condition = Precondition("lro", Answer.UNKNOWN, "ethtool: EPERM")
        device = replace(FULL, preconditions=(condition,))
        assert negotiate(program("action-drop"), device).outcome is ACCEPTED
        assert negotiate(program("action-drop"), device, policy=Policy.STRICT).outcome is REFUSED


_ANSWERS = st.sampled_from(Answer)
_NAMES = st.sampled_from(sorted(CAPABILITIES))


@given(
    answers=st.dictionaries(_NAMES, _ANSWERS),
    needs=st.lists(st.builds(Requirement, _NAMES, optional=st.booleans()), max_size=8),
    mode=st.sampled_from(["native", "generic", "offload"]),
    otherwise=_ANSWERS,
)
def test_strict_never_accepts_what_the_default_refuses(
    answers: dict[str, Answer], needs: list[Requirement], mode: str, otherwise: Answer
) -> None:
    device = Device("any", findings=findings(answers, "made up"), otherwise=otherwise)
    severity = [ACCEPTED, DEGRADED, REFUSED]
    default = negotiate(program(*needs), device, mode=mode)
    strict = negotiate(program(*needs), device, mode=mode, policy=Policy.STRICT)
    assert len(default.verdicts) == len(strict.verdicts)
    for lenient, firm in zip(default.verdicts, strict.verdicts, strict=True):
        assert severity.index(lenient.outcome) <= severity.index(firm.outcome)
        assert firm.remedy is None or firm.outcome is not ACCEPTED


def test_a_findings_remedy_is_the_verdicts_unless_it_is_met() -> None:
    no = Finding("port-index", Answer.NO, "eth0 is a port of no table", remedy="add it")
    refused = negotiate(
        program("port-index"), replace(FULL, findings={**FULL.findings, "port-index": no})
    )
    assert refused.remedies == ("add it",)
    yes = replace(no, answer=Answer.YES)
    met = negotiate(
        program("port-index"), replace(FULL, findings={**FULL.findings, "port-index": yes})
    )
    assert verdict_on(met, "port-index").remedy is None


def test_a_port_that_does_not_transmit_does_not_stop_the_others() -> None:
    redirect = Requirement("redirect-devmap", map="xdpkit_ports")
    for optional, outcome in ((False, REFUSED), (True, DEGRADED)):
        target = Target(VETH_TARGET, map="xdpkit_ports", optional=optional)
        found = negotiate(program(redirect), FULL, targets=[target])
        assert verdict_on(found, "redirect-target").outcome is outcome


def test_a_port_is_the_same_in_every_mode() -> None:
    found = {"port-index": Finding("port-index", Answer.NO, "eth0 is a port of no table")}
    device = replace(FULL, findings={**FULL.findings, **found})
    negotiation = negotiate(program("port-index"), device, mode="generic")
    assert verdict_on(negotiation, "port-index").outcome is REFUSED
