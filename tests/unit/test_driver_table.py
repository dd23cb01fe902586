# SPDX-License-Identifier: Apache-2.0
"""The shipped table of drivers: that it holds together, and what is read from it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from xdpkit.capabilities import Answer, Kernel
from xdpkit.interfaces import table

TABLE: dict[str, Any] = json.loads(table.PATH.read_text())
DRIVERS: list[dict[str, Any]] = TABLE["drivers"]
RELEASE = re.compile(r"[4-9]\.\d{1,2}")

ids = [driver["name"] for driver in DRIVERS]
each_driver = pytest.mark.parametrize("driver", DRIVERS, ids=ids)


def release(text: str) -> tuple[int, int]:
    assert RELEASE.fullmatch(text), text
    major, minor = text.split(".")
    return int(major), int(minor)


def kernel(text: str) -> Kernel:
    return Kernel.parse(text)


def all_names(driver: dict[str, Any]) -> list[str]:
    return [*{driver["name"], *driver["names"], *driver["aliases"]}]


def test_no_name_stands_for_two_drivers() -> None:
    names = [name for driver in DRIVERS for name in all_names(driver)]
    names += [entry["name"] for entry in TABLE["without_native_xdp"]]

    assert len(names) == len(set(names))


@each_driver
def test_every_feature_has_a_kernel_name_and_a_release(driver: dict[str, Any]) -> None:
    assert driver["features"]
    assert set(driver["features"]) <= set(table.FEATURES)
    for entry in driver["features"].values():
        assert set(entry) <= {"since", "absent", "reported", "needs", "partly"}
        since = release(entry["since"])
        assert "absent" not in entry or release(entry["absent"]) < since
        assert entry.get("reported") is None or release(entry["reported"]) > since
        assert entry.get("needs") in (None, "program", "peer")


@each_driver
def test_no_feature_is_older_than_native_xdp_itself(driver: dict[str, Any]) -> None:
    features = driver["features"]
    first = release(features["basic"]["since"])
    for name, entry in features.items():
        # netdevsim ran programs on its pretended NIC before it ran them itself.
        assert name == "hw_offload" or release(entry["since"]) >= first


@each_driver
def test_hints_are_known_ones_and_no_older_than_their_kfuncs(driver: dict[str, Any]) -> None:
    assert set(driver["hints"]) <= {"rx-timestamp", "rx-hash", "rx-vlan"}
    for entry in driver["hints"].values():
        assert release(entry["since"]) >= (6, 3)


@each_driver
def test_the_history_of_adjust_meta_is_in_order(driver: dict[str, Any]) -> None:
    if driver["adjust_meta"] is None:
        return
    history = driver["adjust_meta"]["history"]
    releases = [release(period["since"]) for period in history]

    assert releases == sorted(set(releases))
    assert {period["answer"] for period in history} <= {"yes", "no", "unknown"}
    for period in history:
        assert "absent" not in period or release(period["absent"]) < release(period["since"])


@each_driver
def test_every_entry_names_its_source(driver: dict[str, Any]) -> None:
    sourced = [driver, *driver["constraints"]]
    sourced += [entry for entry in (driver["adjust_meta"], driver["mtu"]) if entry is not None]
    for entry in sourced:
        assert re.search(r"Linux .*drivers/net|docs\.ebpf\.io", entry["source"]), entry
    for constraint in driver["constraints"]:
        assert constraint["effect"] in ("refuse", "feature")
        assert constraint["text"]


@pytest.mark.parametrize("entry", TABLE["without_native_xdp"], ids=lambda entry: entry["name"])
def test_drivers_without_native_xdp_were_looked_at_in_a_range_of_releases(
    entry: dict[str, Any],
) -> None:
    first, last = (release(text) for text in entry["checked"])

    assert first < last <= release(TABLE["newest"])
    assert "Linux" in entry["source"]


@each_driver
def test_every_driver_is_found_by_each_of_its_names(driver: dict[str, Any]) -> None:
    for name in all_names(driver):
        found = table.find(name, kernel("6.12"))
        assert found is not None
        assert found.name == driver["name"]


def test_a_feature_is_there_from_its_release_on() -> None:
    driver = table.find("veth", kernel("5.18"))
    assert driver is not None
    frags = driver.features["rx_sg"]

    assert table.answer(frags, kernel("5.17"), "veth")[0] is Answer.NO
    assert table.answer(frags, kernel("5.18.3-generic"), "veth")[0] is Answer.YES
    assert table.answer(frags, kernel("7.0"), "veth")[0] is Answer.YES


def test_a_release_between_those_that_were_looked_at_is_not_known() -> None:
    driver = table.find("ice", kernel("5.5"))
    assert driver is not None
    redirect = driver.features["redirect"]

    answers = [table.answer(redirect, kernel(text), "ice")[0] for text in ("5.4", "5.5", "5.6")]
    assert answers == [Answer.NO, Answer.UNKNOWN, Answer.YES]


def test_a_distribution_that_backports_may_have_what_its_release_lacks() -> None:
    driver = table.find("veth", kernel("4.18"))
    assert driver is not None
    frags = driver.features["rx_sg"]

    assert table.answer(frags, kernel("4.18.0-553.el8_10.x86_64"), "veth")[0] is Answer.UNKNOWN


def test_what_no_release_had_is_not_known_of_a_later_one() -> None:
    assert table.answer(None, kernel(TABLE["newest"]), "tun")[0] is Answer.NO
    assert table.answer(None, kernel("99.0"), "tun")[0] is Answer.UNKNOWN


def test_a_kernel_without_a_number_leaves_everything_unknown() -> None:
    driver = table.find("veth", kernel("my-own"))
    assert driver is not None

    assert table.answer(driver.features["basic"], kernel("my-own"), "veth")[0] is Answer.UNKNOWN
    assert driver.adjust_meta[0] is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("mlx5_core", "5.17", Answer.NO),
        ("mlx5_core", "6.0", Answer.UNKNOWN),
        ("mlx5_core", "6.1", Answer.YES),
        ("tun", "6.14", Answer.NO),
        ("tun", "6.15", Answer.UNKNOWN),
        ("tun", "6.17", Answer.YES),
        ("ena", "6.19", Answer.NO),
        ("ena", "99.0", Answer.UNKNOWN),
        ("veth", "4.10", Answer.UNKNOWN),
        ("bonding", "6.12", Answer.UNKNOWN),
    ],
)
def test_metadata_is_there_in_the_releases_that_do_not_forbid_it(
    name: str, text: str, answer: Answer
) -> None:
    driver = table.find(name, kernel(text))
    assert driver is not None

    assert driver.adjust_meta[0] is answer


def test_a_driver_has_the_rules_of_its_release_only() -> None:
    old, new = table.find("ixgbe", kernel("5.10")), table.find("ixgbe", kernel("6.1"))
    assert old is not None
    assert new is not None

    assert "cpus_old" in {rule.name for rule in old.constraints}
    assert "cpus_old" not in {rule.name for rule in new.constraints}


def test_an_unlisted_driver_is_not_found() -> None:
    assert table.find("no-such-driver", kernel("6.1")) is None
    assert table.find(None, kernel("6.1")) is None
    assert table.find_without_native("veth") is None
    assert table.find_without_native("r8169") is not None
