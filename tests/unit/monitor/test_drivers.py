# SPDX-License-Identifier: Apache-2.0
"""The shipped table of drivers' statistics, and what is read by it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.interfaces import table
from xdpkit.monitor import drivers
from xdpkit.monitor.drivers import EVENTS, concerning_xdp, standard
from xdpkit.monitor.model import DriverCount

TABLE: dict[str, Any] = json.loads(drivers.PATH.read_text())
DRIVERS: list[dict[str, Any]] = TABLE["drivers"]

each_driver = pytest.mark.parametrize("driver", DRIVERS, ids=[each["name"] for each in DRIVERS])


def test_no_name_stands_for_two_drivers() -> None:
    names = [name for driver in DRIVERS for name in driver["names"]] + TABLE["without"]["names"]

    assert len(names) == len(set(names))
    assert TABLE["without"]["source"]


@each_driver
def test_every_counter_has_a_standard_name(driver: dict[str, Any]) -> None:
    assert driver["source"].startswith("drivers/net/")
    for counter in driver["counters"]:
        assert set(counter) <= {"name", "event", "includes", "aggregate"}
        assert counter["event"] in EVENTS
        assert set(counter.get("includes", ())) <= set(EVENTS) - {counter["event"]}


@each_driver
def test_every_counter_is_found_by_its_name(driver: dict[str, Any]) -> None:
    names = [counter["name"] for counter in driver["counters"]]

    assert len(names) == len(set(names))
    for counter in driver["counters"]:
        # Numbers are looked for wherever they are, so a name has none but the queue's.
        assert re.search(r"\d", counter["name"]) is None
        assert counter["name"] == " ".join(counter["name"].split())
        raw = {counter["name"].replace("{queue}", "7"): 5}
        queue = 7 if "{queue}" in counter["name"] else None
        (count,) = standard(driver["names"][0], raw)
        assert (count.event, count.queue, count.value) == (counter["event"], queue, 5)


@each_driver
def test_a_sum_has_parts(driver: dict[str, Any]) -> None:
    parts = {each["event"] for each in driver["counters"] if not each.get("aggregate")}

    assert {each["event"] for each in driver["counters"] if each.get("aggregate")} <= parts


@each_driver
def test_the_names_are_those_of_the_table_of_drivers(driver: dict[str, Any]) -> None:
    known = {
        name for each in json.loads(table.PATH.read_text())["drivers"] for name in each["names"]
    }

    assert set(driver["names"]) <= known


def test_statistics_of_a_veth_are_read_by_queue_in_the_order_of_the_standard() -> None:
    raw = {
        "peer_ifindex": 3,
        "rx_queue_1_xdp_drops": 2,
        "rx_queue_0_xdp_packets": 10,
        "rx_queue_0_drops": 1,
        "rx_queue_0_xdp_drops": 4,
        "tx_queue_0_xdp_xmit": 8,
    }

    assert standard("veth", raw) == (
        DriverCount("packets", 0, 10),
        DriverCount("drop", 0, 4, ("aborted", "invalid_action")),
        DriverCount("drop", 1, 2, ("aborted", "invalid_action")),
        DriverCount("xmit", 0, 8),
    )
    assert set(concerning_xdp("veth", raw)) == set(raw) - {"peer_ifindex", "rx_queue_0_drops"}


def test_a_sum_is_not_counted_beside_its_parts() -> None:
    raw = {"rx0_xdp_drop": 3, "rx1_xdp_drop": 4, "rx_xdp_drop": 7, "rx_xdp_redirect": 9}

    counts = {(each.event, each.queue): each.value for each in standard("mlx5_core", raw)}

    assert counts == {("drop", 0): 3, ("drop", 1): 4, ("redirect", None): 9}


def test_several_names_of_one_event_are_added_up() -> None:
    raw = {"rx3_xdp_tx_full": 3, "rx3_xdp_tx_err": 4, "rx3_xdp_drop": 1, "rx3_xsk_xdp_drop": 1}

    counts = {(each.event, each.queue): each for each in standard("mlx5_core", raw)}

    assert counts["tx_errors", 3].value == 7
    assert counts["drop", 3].value == 2
    assert counts["drop", 3].includes == (
        "aborted",
        "invalid_action",
        "tx_errors",
        "redirect_errors",
    )


def test_names_with_blanks_brackets_and_dots_are_read() -> None:
    assert standard("fsl_enetc", {"Rx ring  0 XDP drops": 1, "Rx ring 12 XDP drops": 2}) == (
        DriverCount("drop", 0, 1, ("aborted", "invalid_action")),
        DriverCount("drop", 12, 2, ("aborted", "invalid_action")),
    )
    assert standard("gve", {"rx_xdp_pass[3]": 1}) == (DriverCount("pass", 3, 1),)
    assert standard("sfc", {"tx-xdp-cpu-11.tx_packets": 1}) == (
        DriverCount("xmit", 11, 1, ("tx",)),
    )
    assert standard("vmxnet3", {"  xdp tx": 6}) == (DriverCount("tx", None, 6),)


def test_names_that_do_not_say_xdp_are_among_the_raw_ones_if_the_table_has_them() -> None:
    raw = {"Rx ring  0 redirects": 1, "Rx ring  0 frames": 2}

    assert concerning_xdp("fsl_enetc", raw) == {"Rx ring  0 redirects": 1}


def test_of_an_unknown_driver_there_are_raw_names_only() -> None:
    raw = {"rx_queue_0_xdp_packets": 5, "rx_packets": 7, "XDP_oddities": 1}

    assert standard("martian", raw) == ()
    assert concerning_xdp("martian", raw) == {"rx_queue_0_xdp_packets": 5, "XDP_oddities": 1}


names = st.one_of(
    st.text(max_size=31),
    st.builds(
        lambda name, queue: str(name).replace("{queue}", str(queue)),
        st.sampled_from([each["name"] for driver in DRIVERS for each in driver["counters"]]),
        st.integers(0, 2**32),
    ),
)


@given(
    st.sampled_from([name for driver in DRIVERS for name in driver["names"]]),
    st.dictionaries(names, st.integers(0, 2**64 - 1), max_size=30),
)
def test_any_statistics_give_each_event_of_each_queue_once(
    driver: str, raw: dict[str, int]
) -> None:
    counts = standard(driver, raw)

    found = [(each.event, each.queue) for each in counts]
    assert len(found) == len(set(found))
    assert sum(each.value for each in counts) <= sum(raw.values())
    assert set(concerning_xdp(driver, raw)) <= set(raw)
