# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.capabilities import (
    CAPABILITIES,
    FAMILIES,
    CapabilityInfo,
    action_capability,
    capability,
    phrase,
)
from xdpkit.errors import UsageError
from xdpkit.uapi.bpf import XdpAction

DOCUMENT = Path(__file__).parents[3] / "docs" / "capabilities.md"


def row(info: CapabilityInfo) -> str:
    """Return the line of the documented table."""
    return f"| `{info.name}` | {info.meaning} | {info.evidence} | {info.since or 'varies'} |"


@pytest.mark.parametrize("info", [*CAPABILITIES.values(), *FAMILIES.values()], ids=str)
def test_every_capability_is_documented(info: CapabilityInfo) -> None:
    assert row(info) in DOCUMENT.read_text().splitlines()


def test_nothing_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `([^`]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert documented == [info.name for info in (*CAPABILITIES.values(), *FAMILIES.values())]


def test_the_five_actions_are_five_capabilities() -> None:
    names = {action_capability(action) for action in XdpAction}
    assert len(names) == 5
    assert names <= CAPABILITIES.keys()
    assert action_capability(5) is None
    assert action_capability(-1) is None


def test_a_member_of_a_family_is_a_capability() -> None:
    assert capability("helper:redirect_map").name == "helper:redirect_map"
    for name in ("helper", "helper:", ":redirect", "driver:x", "action-tx:", "HELPER:x"):
        with pytest.raises(UsageError, match="no such capability"):
            capability(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("action-tx", "action XDP_TX"),
        ("helper:redirect_map", "helper bpf_redirect_map"),
        ("action-code:42", "may return 42"),
        ("action-code:4294967295", "may return 4294967295 (-1)"),
        ("frags", "frags"),
        ("port-index", "reads port_index"),
        ("port-table", "uses the port table"),
        ("port-set:guests", "uses port set guests"),
        ("context-field:rx_colour", "reads rx_colour"),
        ("packet-write", "packet write"),
        # Of another version, or of nobody.
        ("later-thing", "later thing"),
        ("later-family:member", "later family member"),
        ("{later}:{0}", "{later} {0}"),
        ("helper:{x}{", "helper bpf_{x}{"),
        ("action-code:4294967296", "may return 4294967296"),
        ("action-code:", "may return "),
        ("", ""),
    ],
)
def test_a_capability_has_words(name: str, words: str) -> None:
    assert phrase(name) == words


@given(st.text(), st.sampled_from(["", *FAMILIES]))
def test_no_name_is_too_odd_to_be_put_into_words(text: str, family: str) -> None:
    assert isinstance(phrase(f"{family}:{text}" if family else text), str)


def test_a_number_of_any_length_is_put_into_words() -> None:
    assert phrase(f"action-code:{'9' * 5000}") == f"may return {'9' * 5000}"
