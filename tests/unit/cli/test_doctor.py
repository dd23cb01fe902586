# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit doctor`` prints, from values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.cli.commands import run
from tests.unit.cli.reports import report, without_program
from tests.unit.monitor.patients import (
    DEVICE,
    NOW,
    SECOND,
    facts,
    healthy,
    hook,
    negotiated,
    program,
    record,
    returning,
)
from tests.unit.monitor.snapshots import error, redirect_error
from xdpkit.capabilities import Answer, Finding
from xdpkit.cli.doctor import told
from xdpkit.hook.roots import Root
from xdpkit.monitor import doctor
from xdpkit.monitor.complaints.facts import Facts, Member, TargetState
from xdpkit.monitor.doctor import Diagnosis, diagnose
from xdpkit.monitor.model import Reason
from xdpkit.negotiation import Outcome, Verdict
from xdpkit.requirements import Requirement

Golden = Callable[[str, str], None]


def needing(*capabilities: str) -> list[Verdict]:
    return [
        Verdict(Requirement(name), Finding(name, Answer.YES, ""), "eth0", Outcome.ACCEPTED, "")
        for name in capabilities
    ]


def ill() -> Facts:
    """A machine with a bit of everything."""
    needs = negotiated(*needing("action-drop", "action-pass", "helper:redirect_map"))
    first = program(
        41, "a_firewall_with_a_long_name", record=record("a_firewall", negotiation=needs)
    )
    wrong = replace(
        error(action="invalid", reason=Reason.INVALID, packets=1200, program="xdpkit_root"),
        returned=0xFFFFFFFF,
        last_seen=NOW - SECOND,
    )
    return facts(
        hook(
            Member(first, (0, 1, 5), (returning(2, -1, name="a_firewall", number=41),)),
            Member(program(42, "others"), code=(returning(1, name="others", number=42),)),
            on_hook=program(40, "xdpkit_root", root=Root(40, 5, 8, 6)),
        ),
        tracepoints={
            "errors": (wrong,),
            "redirect_errors": (replace(redirect_error(), last_seen=NOW, program="others"),),
            "other": 3,
        },
        snapshot={"returned": (report(no_program=without_program(q7=(12, 900))),)},
        targets={(3, 0, 0): TargetState(replace(DEVICE, name="eth1"), is_up=False)},
        unseen=("what was counted could not be looked at: \x1b[2J",),
    )


def text(found: Facts, columns: int | None = None) -> str:
    return "".join(f"{line}\n" for line in told(diagnose(found), columns=columns))


def test_complaints_are_told_below_what_is_attached(golden: Golden) -> None:
    golden("doctor.txt", text(ill()))


def test_complaints_fit_a_narrow_terminal(golden: Golden) -> None:
    shown = text(ill(), 80)
    assert max(map(len, shown.splitlines())) <= 80
    golden("doctor-80.txt", shown)


def test_who_is_well_is_told_what_was_looked_at(golden: Golden) -> None:
    parts = [text(healthy_facts()), text(facts()), text(facts(hook()))]
    golden("doctor-well.txt", "\n".join(parts))


def healthy_facts() -> Facts:
    return facts(healthy(), snapshot={"returned": (report(),)})


def test_names_cannot_harm_the_terminal() -> None:
    assert "\x1b" not in text(ill())


@pytest.mark.parametrize(("found", "status"), [(ill(), 8), (healthy_facts(), 0)])
def test_the_exit_status_says_whether_something_is_wrong(
    found: Facts, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def examine(*args: object, pin_root: str) -> Diagnosis:
        asked.append((*args, pin_root))
        return diagnose(found)

    monkeypatch.setattr(doctor, "examine", examine)
    done = run("-n", "blue", "doctor", "eth0", "eth1", "-j")
    assert done.status == status
    assert done.json["well"] is (status == 0)
    assert done.json["schema"] == 1
    assert asked == [("blue", ("eth0", "eth1"), "/sys/fs/bpf")]
    assert run("doctor").status == status
    assert asked[-1] == (None, None, "/sys/fs/bpf")
