# SPDX-License-Identifier: Apache-2.0
"""What a program can be given in its context, and a port table's maps as objects define them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.kernel import Context, MapInfo
from xdpkit.kernel.create import check_reuse, create, is_ports_map
from xdpkit.obj import MapSpec
from xdpkit.uapi.bpf import MapFlags, MapType

SPEC = MapSpec(
    name="xdpkit_ports",
    kernel_name="xdpkit_ports",
    type=MapType.DEVMAP,
    key_size=4,
    value_size=8,
    max_entries=0,
)
INFO = MapInfo(
    id=7,
    name="xdpkit_ports",
    type=MapType.DEVMAP,
    key_size=4,
    value_size=8,
    max_entries=64,
    flags=MapFlags(0),
    ifindex=0,
    btf_id=0,
    key_type_id=0,
    value_type_id=0,
    map_extra=0,
)


@pytest.mark.parametrize(
    "given", [{"port_index": 0}, {"port_index": (1 << 32) - 1, "cookie": (1 << 64) - 1}]
)
def test_a_context_has_what_fits_its_fields(given: dict[str, Any]) -> None:
    assert Context(**given).port_index == given["port_index"]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"port_index": -1}, "port_index is a number of 32 bits, and not -1"),
        ({"port_index": 1 << 32}, "port_index is a number of 32 bits, and not 4294967296"),
        ({"cookie": -1}, "a cookie is a number of 64 bits, and not -1"),
        ({"cookie": 1 << 64}, "a cookie is a number of 64 bits, and not 18446744073709551616"),
        (
            {"port_index": 1, "port_numbers": object()},
            "its port is either one number or looked up, not both",
        ),
    ],
)
def test_a_context_that_cannot_be_is_refused(given: dict[str, Any], cause: str) -> None:
    with pytest.raises(UsageError) as refused:
        Context(**given)
    assert str(refused.value) == f"give a program its context: {cause}"


@pytest.mark.parametrize(
    ("name", "max_entries", "expected"),
    [
        ("xdpkit_ports", 0, True),
        ("xdpkit_port_numbers", 0, True),
        ("xdpkit_port_counts", 0, True),
        ("xdpkit_set_guests", 0, True),
        ("xdpkit_ports", 64, False),
        ("ports", 0, False),
        ("xdpkit_portsmouth", 0, False),
    ],
)
def test_a_port_tables_maps_are_known_by_their_names(
    name: str, max_entries: int, expected: bool
) -> None:
    assert is_ports_map(replace(SPEC, name=name, max_entries=max_entries)) is expected


@pytest.mark.parametrize("entries", [1, 64, 1024])
def test_a_port_tables_map_may_have_any_size(entries: int) -> None:
    check_reuse(SPEC, replace(INFO, max_entries=entries), "use map 7", "pass another")


def test_a_port_tables_map_has_to_fit_in_all_else() -> None:
    with pytest.raises(UsageError, match="value size is 4, and the program's 8"):
        check_reuse(SPEC, replace(INFO, value_size=4), "use map 7", "pass another")


def test_another_map_without_a_size_takes_none_that_has_one() -> None:
    with pytest.raises(UsageError, match="max_entries is 64, and the program's 0"):
        check_reuse(replace(SPEC, name="targets"), INFO, "use map 7", "pass another")


def test_a_port_tables_map_is_not_made_for_a_program() -> None:
    with pytest.raises(RequirementUnmet) as refused:
        create(SPEC, types=None, btf_fd=0, ifindex=0, notes=print)
    assert str(refused.value) == (
        "create map xdpkit_ports: it is a port table's map, and the program was given no port"
        " table\nRemedy: attach the program to an interface that is a port (xdpkit ports), or pass"
        " maps of your own: maps="
    )
