# SPDX-License-Identifier: Apache-2.0
"""Negotiation with live interfaces, and what attaching makes of it."""

from __future__ import annotations

import errno
import gc
import json
import re
import subprocess
import weakref
from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from tests.corpus_actions import cases
from tests.kernel.attaching import program
from tests.kernel.net import Veth, make_veth, rtnetlink
from tests.kernel.process import xdpkit_command
from tests.kernel.transcript import messages_of
from xdpkit import Mode
from xdpkit.capabilities import Answer, Device
from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.hook.members import negotiate_members
from xdpkit.interfaces import device_of
from xdpkit.kernel import DevmapValue, Map
from xdpkit.negotiation import Negotiation, Outcome, Policy
from xdpkit.syscalls.netns import entered

SOURCE = "negotiated.c"

DROP_ONLY = {
    "schema": 1,
    "name": "old driver",
    "otherwise": "no",
    "findings": {"action-aborted": "yes", "action-drop": "yes", "action-pass": "yes"},
}


def spec(name: str) -> xdpkit.ProgramSpec:
    return program(SOURCE, name)


def refused(negotiation: Negotiation | None) -> list[str]:
    assert negotiation is not None
    return [verdict.requirement.capability for verdict in negotiation.refused]


def constant_targets(negotiation: Negotiation) -> list[int | None]:
    return [
        verdict.requirement.ifindex
        for verdict in negotiation.verdicts
        if verdict.requirement.capability == "redirect-ifindex"
    ]


def object_path() -> Path:
    spec("drops")  # skips where nothing can compile it
    return build.build(build.FOLDER / SOURCE, build.compilers()[0]).path


def set_mtu(veth: Veth, mtu: int) -> None:
    with rtnetlink(veth.peer_netns) as connection:
        connection.link("set", ifname=veth.peer, mtu=mtu)


def must_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail if a program is loaded or attached."""

    def load(*_: object, **__: object) -> None:
        pytest.fail("the kernel was asked")

    monkeypatch.setattr("xdpkit.kernel.load", load)
    monkeypatch.setattr("xdpkit.syscalls.bpf.link_create", load)


# Profiles


def test_xdp_tx_is_refused_by_a_profile_that_only_drops_with_the_line(tmp_path: Path) -> None:
    profile = tmp_path / "old.json"
    profile.write_text(json.dumps(DROP_ONLY))

    done = xdpkit_command("check", object_path(), "--program", "reflects", "--profile", profile)

    assert (done.status, done.messages) == (RequirementUnmet.exit_code, "")
    heading, *rest = done.output.splitlines()
    assert heading == "old driver  native  refused"
    (line,) = [line for line in rest if "XDP_TX" in line]
    assert " no " in line
    assert f"file {profile}: not listed" in line
    assert "negotiated.c:" in line


def test_what_device_prints_as_json_is_a_profile(veth: Veth, tmp_path: Path) -> None:
    written = xdpkit_command("device", "-n", veth.netns, veth.name, "-j")
    assert (written.status, written.messages) == (0, "")
    path = tmp_path / "here.json"
    path.write_text(written.output)

    device = Device.from_json(path.read_bytes(), source="file here.json")
    live = device_of(veth.name, netns=veth.netns)

    assert device.findings == live.findings
    assert device.preconditions == live.preconditions
    from_profile = xdpkit.check(spec("reflects"), device)
    from_device = xdpkit.check(spec("reflects"), veth.name, netns=veth.netns)
    assert refused(from_profile) == refused(from_device)


def test_a_profile_of_the_table_needs_no_interface() -> None:
    done = xdpkit_command(
        "check", object_path(), "--program", "reflects", "--profile", "mlx5@6.1", "-j"
    )
    assert done.status == 0, done.messages
    assert done.json["outcome"] == "accepted"
    assert done.json["source"] == "profile mlx5@6.1"


# Redirects


@pytest.fixture
def other(veth: Veth) -> Veth:
    """A second pair in the same namespace, to redirect to."""
    return make_veth(veth.netns)


def test_a_redirect_into_a_veth_waits_for_its_peers_program(veth: Veth, other: Veth) -> None:
    before = xdpkit.check(spec("to_ports"), veth.name, targets=[other.name], netns=veth.netns)
    assert refused(before) == ["redirect-target"]
    (verdict,) = before.refused
    assert verdict.device == other.name
    assert str(verdict.requirement.origin).startswith("negotiated.c:")
    assert other.peer in verdict.why
    assert verdict.remedy is not None

    with xdpkit.attach(other.peer, spec("drops"), netns=veth.netns):
        after = xdpkit.check(spec("to_ports"), veth.name, targets=[other.name], netns=veth.netns)
        assert after.outcome is Outcome.ACCEPTED, after.refused
        xdpkit.attach(veth.name, spec("to_ports"), targets=[other.name], netns=veth.netns).close()


def test_attaching_refuses_a_redirect_that_would_be_lost(
    veth: Veth, other: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    must_not_load(monkeypatch)
    with pytest.raises(RequirementUnmet, match=r"redirects at negotiated\.c:") as caught:
        xdpkit.attach(veth.name, spec("to_ports"), targets=[other.name], netns=veth.netns)
    assert other.name in caught.value.cause


def test_an_interface_that_the_program_names_is_looked_at_unasked(veth: Veth, other: Veth) -> None:
    # Read anew: variables are the object's, which other tests share.
    to_neighbour = xdpkit.read(object_path()).programs["to_neighbour"]
    variables = to_neighbour.object.variables
    variables["neighbour"] = other.interface.index
    found = xdpkit.check(to_neighbour, veth.name, netns=veth.netns)
    assert refused(found) == ["redirect-target"]
    assert found.refused[0].device == other.name

    variables["neighbour"] = 1 << 20
    for mode in (Mode.NATIVE, Mode.GENERIC):
        found = xdpkit.check(to_neighbour, veth.name, mode=mode, netns=veth.netns)
        assert refused(found) == ["redirect-target"]
        assert "no such interface" in found.refused[0].why
        assert found.remedies == ()


def test_what_a_live_devmap_holds_is_looked_at(veth: Veth, other: Veth) -> None:
    with xdpkit.load(spec("to_ports")) as loaded:
        empty = xdpkit.check(loaded, veth.name, netns=veth.netns)
        assert empty.outcome is Outcome.ACCEPTED

        with entered(veth.netns):
            loaded.maps["tx_ports"][2] = other.interface.index
        found = xdpkit.check(loaded, veth.name, netns=veth.netns)
        assert refused(found) == ["redirect-target"]
        assert (found.refused[0].device, found.refused[0].requirement.map) == (
            other.name,
            "tx_ports",
        )
        with pytest.raises(RequirementUnmet):
            xdpkit.attach(veth.name, loaded, netns=veth.netns)

        existing: dict[str, Map] = {"tx_ports": loaded.maps["tx_ports"]}
        with pytest.raises(RequirementUnmet, match=other.name):
            xdpkit.attach(veth.name, spec("to_ports"), maps=existing, netns=veth.netns)


# The configuration


def test_an_mtu_too_large_is_refused_before_the_kernel_and_the_remedies_work(
    veth: Veth, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_mtu(veth, 9000)
    with monkeypatch.context() as patched:
        must_not_load(patched)
        with pytest.raises(RequirementUnmet, match="MTU 9000") as caught:
            xdpkit.attach(veth.name, spec("drops"), netns=veth.netns)
    remedy = str(caught.value.remedy)
    assert "xdp.frags" in remedy

    xdpkit.attach(veth.name, spec("with_frags"), netns=veth.netns).close()
    (command,) = re.findall(r"nsenter .* mtu 3506", remedy)
    subprocess.run(command, shell=True, check=True)
    xdpkit.attach(veth.name, spec("drops"), netns=veth.netns).close()


def test_forced_the_kernels_own_message_arrives_in_the_error(veth: Veth) -> None:
    set_mtu(veth, 9000)
    with pytest.raises(KernelRefused) as caught:
        xdpkit.attach(veth.name, spec("drops"), netns=veth.netns, force=True)
    assert caught.value.errno == errno.ERANGE
    assert caught.value.extack == "veth: Peer MTU is too large to set XDP"
    assert caught.value.extack in caught.value.cause


def test_the_command_says_what_force_overrides(veth: Veth, pin_root: str) -> None:
    set_mtu(veth, 9000)
    here = ["-n", veth.netns, "--pin-root", pin_root, "--program", "drops"]
    done = xdpkit_command("attach", *here, veth.name, object_path())
    assert done.status == RequirementUnmet.exit_code

    done = xdpkit_command("attach", *here, veth.name, object_path(), "--force")
    assert done.status == KernelRefused.exit_code
    overridden, *error = done.messages.splitlines()
    assert overridden.startswith("xdpkit: overridden by --force: ")
    assert "MTU 9000" in overridden
    assert "Peer MTU is too large to set XDP" in "\n".join(error)


def test_the_command_says_what_an_attached_program_lacks(veth: Veth, pin_root: str) -> None:
    here = ["-j", "-n", veth.netns, "--pin-root", pin_root, veth.name, object_path()]
    done = xdpkit_command("attach", *here, "--program", "reflects", "--policy", "report")
    assert messages_of(done).startswith("xdpkit: let in by --policy report: it needs action XDP_TX")
    assert len(messages_of(done).splitlines()) == 1
    assert done.json["negotiation"]["outcome"] == "refused"
    assert done.json["overridden"] is False
    xdpkit_command("detach", "-n", veth.netns, "--pin-root", pin_root, veth.name)

    done = xdpkit_command("attach", *here, "--program", "reflects", "--force")
    assert messages_of(done).startswith("xdpkit: overridden by --force: ")
    assert len(messages_of(done).splitlines()) == 1
    assert done.json["overridden"] is True
    xdpkit_command("detach", "-n", veth.netns, "--pin-root", pin_root, veth.name)

    done = xdpkit_command("attach", *here, "--program", "drops", "--mode", "generic")
    assert done.status == 0
    assert messages_of(done).startswith("xdpkit: degraded: ")


def test_a_forced_program_runs_where_only_the_negotiation_refused(veth: Veth) -> None:
    with pytest.raises(RequirementUnmet, match="XDP_TX"):
        xdpkit.attach(veth.name, spec("reflects"), netns=veth.netns)
    with xdpkit.attach(veth.name, spec("reflects"), netns=veth.netns, force=True) as attached:
        assert veth.interface.xdp.native == attached.program.id
        assert refused(attached.negotiation) == ["action-tx"]


# Policies and modes


def test_a_value_from_a_map_passes_but_not_strictly(veth: Veth) -> None:
    # The peer has a program, so that all five actions are offered.
    with xdpkit.attach(veth.peer, spec("drops"), netns=veth.netns):
        default = xdpkit.check(spec("asks_a_map"), veth.name, netns=veth.netns)
        assert default.outcome is Outcome.ACCEPTED
        strict = xdpkit.check(spec("asks_a_map"), veth.name, policy=Policy.STRICT, netns=veth.netns)
        # The object declares what it may be: degraded, not refused.
        (verdict,) = strict.degraded
        assert verdict.requirement.capability == "action-any"


def test_a_return_value_that_is_no_action_is_degraded_with_its_line(veth: Veth) -> None:
    found = xdpkit.check(spec("mistaken"), veth.name, netns=veth.netns)
    (verdict,) = found.degraded
    assert verdict.requirement.label == "may return 42"
    assert str(verdict.requirement.origin).startswith("negotiated.c:")
    with xdpkit.attach(veth.name, spec("mistaken"), netns=veth.netns) as attached:
        assert attached.negotiation is not None
        assert attached.negotiation.outcome is Outcome.DEGRADED


def test_report_only_attaches_and_keeps_the_verdicts(veth: Veth) -> None:
    with xdpkit.attach(
        veth.name, spec("reflects"), policy=Policy.REPORT, netns=veth.netns
    ) as attached:
        assert refused(attached.negotiation) == ["action-tx"]


def test_generic_mode_is_the_remedy_that_works_without_native_xdp(netns: str) -> None:
    with pytest.raises(RequirementUnmet, match="native mode") as caught:
        xdpkit.attach("lo", spec("drops"), netns=netns)
    assert "--mode generic" in str(caught.value.remedy)
    xdpkit.attach("lo", spec("drops"), netns=netns, mode=Mode.GENERIC).close()


def test_the_kernel_is_asked_for_what_the_program_needs_of_it(veth: Veth) -> None:
    found = xdpkit.check(spec("to_ports"), veth.name, netns=veth.netns)
    answers = {verdict.requirement.capability: verdict.answer for verdict in found.verdicts}
    assert answers["helper:redirect_map"] is Answer.YES
    assert answers["map-type:devmap"] is Answer.YES


def test_a_program_of_unknown_origin_is_held_against_the_mode_and_the_configuration(
    veth: Veth,
) -> None:
    with (
        xdpkit.load(spec("drops")) as loaded,
        xdpkit.Program.from_id(loaded.id) as foreign,
    ):
        # It may return anything, and not everything is offered; and who knows what it reads.
        found = xdpkit.check(foreign, veth.name, netns=veth.netns)
        assert found.outcome is Outcome.DEGRADED
        strict = xdpkit.check(foreign, veth.name, netns=veth.netns, policy=Policy.STRICT)
        assert refused(strict) == ["action-any", "port-index"]
        assert "instructions are not known" in found.notes[0]
        assert refused(xdpkit.check(foreign, "lo", netns=veth.netns)) == ["mode-native"]
        set_mtu(veth, 9000)
        # It may take frags.
        assert xdpkit.check(foreign, veth.name, netns=veth.netns).outcome is Outcome.DEGRADED


def test_checking_loads_and_attaches_nothing(veth: Veth, monkeypatch: pytest.MonkeyPatch) -> None:
    must_not_load(monkeypatch)
    xdpkit.check(spec("to_ports"), veth.name, netns=veth.netns)
    assert veth.interface.xdp.native is None


def test_the_command_checks_with_targets_and_policies(veth: Veth, other: Veth) -> None:
    here = ["check", "-n", veth.netns, veth.name, object_path(), "--program", "to_ports"]
    assert xdpkit_command(*here).status == 0
    assert xdpkit_command(*here, "--policy", "strict").status == RequirementUnmet.exit_code
    done = xdpkit_command(*here, "--target", other.name)
    assert done.status == RequirementUnmet.exit_code
    assert f"redirect target: {other.name}" in done.output
    assert "Remedy: attach a program to the veth peer" in done.output
    done = xdpkit_command(*here, "--target", other.name, "--policy", "report", "-j")
    assert done.status == 0
    assert (done.json["outcome"], done.json["allowed"]) == ("refused", True)


def test_modes_are_named_as_everywhere(veth: Veth) -> None:
    done = xdpkit_command(
        "check", "-n", veth.netns, veth.name, object_path(), "--program", "drops", "--mode", "skb"
    )
    # The program would like a hint, and generic mode has none.
    assert done.output.splitlines()[0] == f"{veth.name}  generic  degraded"


def test_a_loaded_program_is_negotiated_with_the_variables_it_was_loaded_with() -> None:
    if not build.compilers():
        pytest.skip("no BPF compiler: apt-get install clang")
    obj = cases.read(cases.FOLDER / "maps.c", build.compilers()[0])
    spec = obj.programs["constant_variable"]
    device = Device.from_json(json.dumps(DROP_ONLY), source="file old.json")
    for loaded_with, set_later, expected in ((3, 2, ["action-tx"]), (2, 3, [])):
        obj.variables["configured"] = loaded_with
        with xdpkit.load(spec) as loaded:
            obj.variables["configured"] = set_later
            assert refused(xdpkit.check(loaded, device)) == expected
            assert refused(xdpkit.check(spec, device)) != expected


def test_a_loaded_program_is_read_again_when_its_constants_are_others() -> None:
    if not build.compilers():
        pytest.skip("no BPF compiler: apt-get install clang")
    obj = cases.read(cases.FOLDER / "maps.c", build.compilers()[0])
    device = Device.from_json(json.dumps(DROP_ONLY), source="file old.json")
    obj.variables["configured"] = 3
    with xdpkit.load(obj.programs["constant_variable"]) as loaded:
        assert loaded.spec is not None
        assert refused(xdpkit.check(loaded, device)) == ["action-tx"]
        loaded.spec.object.variables["configured"] = 2
        assert refused(xdpkit.check(loaded, device)) == []


def test_a_loaded_program_is_held_against_the_interface_as_it_is_each_time(veth: Veth) -> None:
    with xdpkit.load(spec("drops")) as loaded:
        for mtu, allowed in ((1500, True), (9000, False), (1500, True)):
            set_mtu(veth, mtu)
            found = xdpkit.check(loaded, veth.name, netns=veth.netns)
            assert found.is_allowed is allowed


def test_what_a_loaded_program_needs_is_forgotten_with_it() -> None:
    device = Device("able", otherwise=Answer.YES)
    with xdpkit.load(spec("drops")) as loaded:
        xdpkit.check(loaded, device)
        known = weakref.ref(loaded)
    del loaded
    gc.collect()

    assert known() is None


ARRAY = "program_array.c"


def test_a_program_array_is_believed_while_it_holds_what_the_load_put_there() -> None:
    device = Device("able", otherwise=Answer.YES)

    def may_return_anything(
        checked: xdpkit.ProgramSpec | xdpkit.Program, maps: dict[str, Map] | None = None
    ) -> bool:
        found = xdpkit.check(checked, device, policy=Policy.STRICT, maps=maps)
        return "action-any" in refused(found)

    with (
        xdpkit.load(program(ARRAY, "from_subprogram")) as loaded,
        xdpkit.load(program(ARRAY, "other")) as other,
    ):
        jumps = loaded.maps["jumps"]
        assert not may_return_anything(loaded)
        jumps[2] = other
        assert may_return_anything(loaded)
        del jumps[2]
        assert not may_return_anything(loaded)
        jumps[5] = other
        assert may_return_anything(loaded)

        existing: dict[str, Map] = {"jumps": jumps}
        spec = program(ARRAY, "from_subprogram")
        assert not may_return_anything(spec)
        assert may_return_anything(spec, existing)
        with xdpkit.load(spec, maps=existing) as sharing:
            assert may_return_anything(sharing)


def test_constants_from_a_given_map_are_not_known() -> None:
    device = Device("able", otherwise=Answer.YES)
    with xdpkit.load(spec("to_neighbour")) as loaded:
        existing: dict[str, Map] = {".rodata": loaded.maps[".rodata"]}
        (known,) = constant_targets(xdpkit.check(loaded, device))
        assert known == 1
        assert constant_targets(xdpkit.check(spec("to_neighbour"), device, maps=existing)) == [None]
        with xdpkit.load(spec("to_neighbour"), maps=existing) as sharing:
            assert constant_targets(xdpkit.check(sharing, device)) == [None]


MEMBERS = "members.c"


def test_a_program_put_into_a_program_array_is_negotiated_too(veth: Veth) -> None:
    with (
        xdpkit.attach(veth.name, program(MEMBERS, "enter"), netns=veth.netns) as attached,
        xdpkit.load(program(MEMBERS, "reflects")) as reflects,
        xdpkit.load(program(MEMBERS, "passes")) as passes,
    ):
        steps = attached.maps["steps"]
        with pytest.raises(RequirementUnmet, match=r"put reflects into steps of [\w-]+: .*XDP_TX"):
            steps[0] = reflects
        with pytest.raises(RequirementUnmet, match="put reflects into steps"):
            steps.update_many({0: passes, 1: reflects})
        assert list(steps) == []
        steps[0] = passes
        assert steps[0] == passes.id


def test_a_program_put_into_a_devmap_is_held_against_what_a_devmap_takes(veth: Veth) -> None:
    with (
        xdpkit.attach(veth.name, program(MEMBERS, "enter"), netns=veth.netns) as attached,
        xdpkit.load(program(MEMBERS, "turns_back")) as turns_back,
        xdpkit.load(program(MEMBERS, "leaves")) as leaves,
        entered(veth.netns),
    ):
        ports, ifindex = attached.maps["ports"], veth.interface.index
        with pytest.raises(RequirementUnmet, match="a devmap entry drops what its program returns"):
            ports[0] = DevmapValue(ifindex, turns_back)
        assert dict(ports) == {}
        ports[0] = DevmapValue(ifindex, leaves)
        assert ports[0] == DevmapValue(ifindex, leaves.id)


def test_a_forced_attach_negotiates_no_members(veth: Veth) -> None:
    with (
        xdpkit.attach(veth.name, program(MEMBERS, "enter"), netns=veth.netns, force=True) as forced,
        xdpkit.load(program(MEMBERS, "reflects")) as reflects,
    ):
        forced.maps["steps"][0] = reflects
        assert forced.maps["steps"][0] == reflects.id


def test_members_are_negotiated_only_while_the_program_is_attached(veth: Veth) -> None:
    with (
        xdpkit.load(program(MEMBERS, "enter")) as enter,
        xdpkit.load(program(MEMBERS, "reflects")) as reflects,
    ):
        with xdpkit.attach(veth.name, enter, netns=veth.netns), pytest.raises(RequirementUnmet):
            enter.maps["steps"][0] = reflects
        enter.maps["steps"][0] = reflects
        assert enter.maps["steps"][0] == reflects.id


def test_a_member_has_to_suit_every_interface_of_its_owner(veth: Veth, netns: str) -> None:
    other = make_veth(netns)
    with (
        xdpkit.load(program(MEMBERS, "enter")) as enter,
        xdpkit.load(program(MEMBERS, "reflects")) as reflects,
        xdpkit.attach(veth.name, enter, netns=veth.netns),
        xdpkit.attach(other.name, enter, netns=netns, mode="generic"),
        pytest.raises(RequirementUnmet, match=f"put reflects into steps of {veth.name}"),
    ):
        enter.maps["steps"][0] = reflects


def test_a_loaded_devmap_program_is_none_for_an_interface(veth: Veth) -> None:
    with (
        xdpkit.load(program(MEMBERS, "leaves")) as leaves,
        pytest.raises(UsageError, match="a devmap runs it"),
    ):
        xdpkit.attach(veth.name, leaves, netns=veth.netns)


def test_what_is_no_program_is_refused_by_name(veth: Veth) -> None:
    with pytest.raises(UsageError, match="it is no program: give one of an object's programs"):
        xdpkit.attach(veth.name, program(MEMBERS, "enter").object, netns=veth.netns)  # type: ignore[arg-type]


def test_a_member_given_by_its_descriptor_is_held_to_what_is_not_known(veth: Veth) -> None:
    with (
        xdpkit.load(program(MEMBERS, "reflects")) as reflects,
        xdpkit.load(program(MEMBERS, "turns_back")) as turns_back,
        xdpkit.load(program(MEMBERS, "enter")) as enter,
        negotiate_members(enter.maps, veth.interface, Mode.NATIVE, Policy.STRICT),
    ):
        with pytest.raises(RequirementUnmet, match="put reflects into steps"):
            enter.maps["steps"][0] = reflects.fileno()
        with pytest.raises(RequirementUnmet, match="put turns_back into ports"):
            enter.maps["ports"][0] = DevmapValue(1, turns_back.fileno())
        assert (dict(enter.maps["steps"]), dict(enter.maps["ports"])) == ({}, {})
