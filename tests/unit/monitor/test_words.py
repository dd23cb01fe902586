# SPDX-License-Identifier: Apache-2.0
"""What is said about lost packets."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from xdpkit.errors import errno_name
from xdpkit.monitor import words
from xdpkit.monitor.model import Reason
from xdpkit.monitor.words import (
    Why,
    why_exception,
    why_redirect,
    why_transmit,
)
from xdpkit.rewrite import COUNTED

CATALOGUE: dict[str, Any] = json.loads(words.PATH.read_text())
KINDS = {"interface", "devmap", "cpumap", "xskmap", ""}
NAMES = {errno_name(number) for number in errno.errorcode}
PARTS = ("redirect", "transmit", "exception")


@pytest.mark.parametrize("part", PARTS)
def test_every_entry_says_something_and_names_its_source(part: str) -> None:
    for entry in CATALOGUE[part]:
        assert entry["says"]
        assert entry["source"]
        # A phrase that follows a colon, and that another sentence can follow.
        assert not entry["says"].endswith(".")
        assert entry["says"][0].islower() or entry["says"].startswith("{")
        assert entry["remedy"] is None or not entry["remedy"].endswith(".")


@pytest.mark.parametrize("part", ["redirect", "transmit"])
def test_every_errno_is_one_that_the_kernel_has(part: str) -> None:
    assert {entry["error"] for entry in CATALOGUE[part]} <= NAMES | {""}


def test_an_errno_stands_for_one_cause_at_each_kind_of_target() -> None:
    meant = [(entry["error"], kind) for entry in CATALOGUE["redirect"] for kind in entry["kinds"]]

    assert len(meant) == len(set(meant))
    assert {kind for _, kind in meant} == KINDS


def test_every_reason_is_explained_and_only_for_actions_that_exist() -> None:
    explained = CATALOGUE["exception"]

    assert {entry["reason"] for entry in explained} == {reason.value for reason in Reason}
    assert {action for entry in explained for action in entry["actions"]} <= set(COUNTED)


def test_an_errno_means_something_else_at_another_target() -> None:
    assert "no interface with this index" in why_redirect("EINVAL", "interface").cause
    assert "another interface or RX queue" in why_redirect("EINVAL", "xskmap").cause


def test_a_sure_remedy_is_added() -> None:
    said = why_redirect("ENETDOWN", "devmap")

    assert said.cause.startswith("the target is not up")
    assert said.remedy == "set it up with `ip link set dev NAME up`"
    assert str(said) == f"{said.cause}. Remedy: {said.remedy}"


def test_where_the_target_does_not_decide_all_causes_are_said_and_no_remedy() -> None:
    said = why_redirect("EINVAL", "")

    assert "no interface with this index" in said.cause
    assert "; or the socket is bound" in said.cause
    assert said.remedy is None
    assert str(said) == said.cause


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    assert why_redirect("ELOOP", "devmap") == Why("cause unknown")
    assert why_transmit("ELOOP") == Why("cause unknown")
    assert why_exception("pass", Reason.INVALID, 2) == Why("cause unknown")


def test_frames_that_were_not_taken_without_an_error_are_explained() -> None:
    assert "queue is full" in why_transmit("").cause
    assert "no queue for redirected frames" in str(why_transmit("ENXIO"))


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (5, "5 is no action"),
        (42, "42 is no action"),
        (0xFFFFFFFF, "4294967295 (-1) is no action"),
        (-1, "4294967295 (-1) is no action"),
    ],
)
def test_a_number_that_is_no_action_is_shown_as_it_was_written(returned: int, shown: str) -> None:
    assert str(why_exception("invalid", Reason.INVALID, returned)).startswith(shown)


def test_a_missing_entry_is_among_the_causes_of_aborted() -> None:
    assert "found no entry" in why_exception("aborted", Reason.ABORTED, 0).cause
