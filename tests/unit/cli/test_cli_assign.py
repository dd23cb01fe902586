# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.unit.cli import firewall
from xdpkit.cli.assign import assign
from xdpkit.errors import UsageError
from xdpkit.obj import Object, read


@pytest.fixture
def obj() -> Object:
    return read(firewall.build(), name="fw.o")


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("blocked_port=80", 80),
        ("blocked_port=0x50", 80),
        ("policy=1", 1),
        ("policy=POLICY_OPEN", 0),
        ("label=core", b"core\0\0\0\0"),
        ("label=12", b"12\0\0\0\0\0\0"),
        ("label=a=b", b"a=b\0\0\0\0\0"),
        ("seen=[1, 2]", [1, 2]),
    ],
)
def test_text_becomes_a_value_of_the_variables_type(
    obj: Object, assignment: str, value: object
) -> None:
    assign(obj, [assignment])
    assert obj.variables[assignment.partition("=")[0]] == value


@pytest.mark.parametrize(
    ("assignment", "cause"),
    [
        ("blocked_port", "there is no '=' in it"),
        ("port=1", "it has these global variables"),
        ("blocked_port=http", "it is a number"),
        ("blocked_port=65536", "0 … 65535"),
        ("blocked_port=", "it is a number"),
        ("policy=POLICY_AJAR", "POLICY_OPEN, POLICY_CLOSED"),
        ("label=much too long", "8"),
        ("seen=1, 2", "it takes JSON"),
        ("seen=[1, 2, 3]", "2"),
        ("seen=" + "[" * 100_000, "it takes JSON"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    obj: Object, assignment: str, cause: str
) -> None:
    before = dict(obj.variables)
    with pytest.raises(UsageError, match=r"^(set|find) variable|^set '") as refused:
        assign(obj, ["blocked_port=1", "label=new", assignment])
    assert cause in refused.value.cause
    assert dict(obj.variables) == before


def test_the_last_assignment_wins(obj: Object) -> None:
    assign(obj, ["blocked_port=1", "blocked_port=2"])
    assert obj.variables["blocked_port"] == 2
