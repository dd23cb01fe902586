# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.capabilities import CAPABILITIES, Answer, Device, Finding, Precondition, in_mode
from xdpkit.errors import UsageError

_ANSWERS = st.sampled_from(Answer)
_NUMBERS = st.integers(0, (1 << 32) - 1)
_NAMES = st.sampled_from([*CAPABILITIES, "helper:redirect_map", "kfunc:bpf_x", "map-type:devmap"])
_FINDINGS = st.builds(Finding, _NAMES, _ANSWERS, st.text(), st.none() | _NUMBERS)
_PRECONDITIONS = st.builds(
    Precondition,
    st.text(min_size=1),
    _ANSWERS,
    st.text(),
    st.lists(st.sampled_from(["native", "generic", "offload"]), unique=True).map(tuple),
    st.none() | st.sampled_from(sorted(CAPABILITIES)),
    st.none() | st.text(),
)
_DEVICES = st.builds(
    Device,
    name=st.text(min_size=1),
    driver=st.none() | st.text(),
    kernel=st.none() | st.text(),
    kind=st.none() | st.text(),
    mtu=_NUMBERS,
    rx_queues=_NUMBERS,
    tx_queues=_NUMBERS,
    findings=st.lists(_FINDINGS).map(lambda found: {item.capability: item for item in found}),
    preconditions=st.lists(_PRECONDITIONS, max_size=3).map(tuple),
    source=st.text(min_size=1),
    mode=st.sampled_from(["native", "generic", "offload"]),
    otherwise=_ANSWERS,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(_DEVICES)
def test_a_device_survives_json(device: Device) -> None:
    text = json.dumps(device.to_dict())
    assert Device.from_json(text, source=device.source) == device


def test_a_profile_written_by_hand_needs_little() -> None:
    text = """{"schema": 1, "name": "old", "otherwise": "no",
               "findings": {"action-drop": "yes", "mtu": {"answer": "yes", "limit": 1500}}}"""
    device = Device.from_json(text, source="file old.json")
    assert device.finding("action-drop") == Finding("action-drop", Answer.YES, "file old.json")
    assert device.finding("action-tx").answer is Answer.NO
    assert device.findings["mtu"].limit == 1500
    assert (device.mtu, device.mode, device.driver) == (1500, "native", None)


def test_what_a_profile_does_not_list_of_the_kernel_is_unknown() -> None:
    device = Device("old", otherwise=Answer.NO, source="file old.json")
    assert device.finding("helper:redirect").answer is Answer.UNKNOWN
    assert device.finding("link").answer is Answer.UNKNOWN


def test_an_unprobed_capability_is_unknown_not_missing() -> None:
    assert Device("eth0").finding("action-tx") == Finding("action-tx", Answer.UNKNOWN, "not asked")


def test_a_capability_that_does_not_exist_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="no such capability"):
        Device("eth0").finding("action-fly")


_MINIMAL = {"schema": 1, "name": "x"}


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ([], "a JSON object is expected"),
        (None, "a JSON object is expected"),
        ({}, "its schema is missing"),
        ({"schema": 2, "name": "x"}, "it has schema 2"),
        ({"schema": True, "name": "x"}, "schema: a number"),
        ({"schema": 1}, "it has no name"),
        ({**_MINIMAL, "name": ["x"]}, "name: text"),
        ({**_MINIMAL, "mtu": -1}, "mtu: a number"),
        ({**_MINIMAL, "mtu": 1e3}, "mtu: a number"),
        ({**_MINIMAL, "mtu": 1 << 32}, "mtu: a number"),
        ({**_MINIMAL, "mode": "skb"}, "mode: "),
        ({**_MINIMAL, "mode": {}}, "mode: "),
        ({**_MINIMAL, "otherwise": []}, "otherwise: "),
        ({**_MINIMAL, "colour": "red"}, "unknown key, 'colour'"),
        ({**_MINIMAL, "findings": []}, "findings: a JSON object"),
        ({**_MINIMAL, "findings": {"action-fly": "yes"}}, "no such capability"),
        ({**_MINIMAL, "findings": {"helper:": "yes"}}, "no such capability"),
        ({**_MINIMAL, "findings": {"action-tx": "maybe"}}, 'answer: "yes", "no"'),
        ({**_MINIMAL, "findings": {"action-tx": 1}}, "a JSON object is expected"),
        ({**_MINIMAL, "findings": {"action-tx": {}}}, "it has no answer"),
        ({**_MINIMAL, "findings": {"action-tx": {"answer": "no", "x": 1}}}, "unknown key, 'x'"),
        ({**_MINIMAL, "preconditions": {}}, "preconditions: a JSON array"),
        ({**_MINIMAL, "preconditions": [1]}, "a JSON object is expected"),
        ({**_MINIMAL, "preconditions": [{"name": "mtu"}]}, "it needs a name and an answer"),
        (
            {**_MINIMAL, "preconditions": [{"name": "a", "answer": "no", "modes": ["skb"]}]},
            "modes: ",
        ),
        (
            {**_MINIMAL, "preconditions": [{"name": "a", "answer": "no", "waived_by": "luck"}]},
            "waived_by: there is no capability 'luck'",
        ),
    ],
)
def test_a_malformed_profile_is_refused_with_the_reason(data: object, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        Device.from_dict(data, source="file x.json")
    assert "file x.json" in caught.value.what
    assert cause in caught.value.cause


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema": ' + "9" * 5000 + "}", "\0"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Device.from_json(text, source="file x.json")


@given(_JSON)
def test_any_json_gives_a_device_or_a_usage_error(data: Any) -> None:
    for candidate in (data, {**_MINIMAL, "findings": data}, {**_MINIMAL, "preconditions": data}):
        try:
            Device.from_dict(candidate)
        except UsageError:
            continue


@given(_DEVICES, st.sampled_from(["native", "generic", "offload"]))
def test_a_device_in_another_mode_keeps_what_is_not_the_drivers(device: Device, mode: str) -> None:
    other = in_mode(device, mode)
    assert other.mode == mode
    for name in ("helper:redirect_map", "redirect-target", "rx-queues"):
        assert other.findings.get(name) == device.findings.get(name)
    assert in_mode(other, mode) is other


@pytest.mark.parametrize(
    ("kernel", "answer"),
    [
        ("5.10", Answer.NO),
        ("6.1", Answer.YES),
        (None, Answer.UNKNOWN),
        ("5.14.0-1.el9", Answer.UNKNOWN),
    ],
)
def test_generic_mode_offers_what_the_devices_kernel_has(
    kernel: str | None, answer: Answer
) -> None:
    device = in_mode(Device("eth0", kernel=kernel), "generic")
    assert device.finding("redirect-cpumap").answer is answer
    assert device.finding("action-drop").answer is Answer.YES
