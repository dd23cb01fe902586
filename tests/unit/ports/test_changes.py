# SPDX-License-Identifier: Apache-2.0
"""What is told of ports, and what is not changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpkit.errors import RequirementUnmet
from xdpkit.ports import Change, Event
from xdpkit.ports.following import require_known
from xdpkit.tables.model import Table


def test_a_change_is_a_sentence_and_plain_data() -> None:
    change = Change("lan", 2, "eth1", Event.GONE, "port 2 (eth1) of lan: eth1 is gone")
    assert str(change) == "port 2 (eth1) of lan: eth1 is gone"
    assert change.to_dict() == {
        "table": "lan",
        "number": 2,
        "port": "eth1",
        "event": "gone",
        "text": "port 2 (eth1) of lan: eth1 is gone",
    }


def test_what_a_later_version_wrote_is_not_changed() -> None:
    table = Table("lan", 64, xdpkit="9.1")
    require_known(table, "add eth1 to it")
    with pytest.raises(RequirementUnmet) as caught:
        require_known(replace(table, unknown=True), "add eth1 to it")
    assert caught.value.what == "add eth1 to it"
    assert caught.value.cause == "xdpkit 9.1 wrote it, with what this version does not know"
    assert caught.value.remedy == "use xdpkit 9.1"
