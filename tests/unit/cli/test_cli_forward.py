# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit forward`` shows, from values, and what it refuses at once."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import xdpkit
from tests.unit.cli.commands import run
from xdpkit.cli.forward import Round, happened, lines, rates, to_dict
from xdpkit.monitor.model import Where
from xdpkit.monitor.portcounts import (
    PortCounts,
    PortError,
    PortState,
    PortTrouble,
    TableCounts,
)

Golden = Callable[[str, str], None]

EXAMPLES = Path(xdpkit.__file__).parent / "examples"
PUBLIC = ("interfaces", "kernel", "monitor", "negotiation", "obj", "ports")
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def port(number: int, name: str, seconds: int = 0, per_second: int = 0) -> PortCounts:
    frames = 1000 + seconds * per_second
    return PortCounts(
        number=number,
        name=name,
        state=PortState.UP,
        where=Where("", name, 7 + number),
        received=frames,
        received_bytes=frames * 64,
        sent=frames // 2,
        sent_bytes=frames * 32,
    )


def whole(seconds: int = 0) -> Round:
    """A switch with a busy port, one that loses frames, and one whose interface is gone."""
    lossy = replace(
        port(1, "eth2", seconds, 10),
        errors=(PortError("ENETDOWN", 5 + 5 * seconds), PortError("EMSGSIZE", 7)),
        xmit_errors=12_000 * seconds,
        transmit_drops=0,
    )
    absent = PortCounts(
        number=2,
        name="eth3",
        state=PortState.ABSENT,
        where=Where("", "eth\x1b3", 9),
        errors=(PortError("absent", 40 + seconds),),
        troubles=(PortTrouble("absent", "its interface eth\x1b3 is absent", "absent"),),
    )
    counts = TableCounts("l2", 3, (port(0, "eth1", seconds, 1_234_567), lossy, absent))
    clock = BEGIN.replace(second=5 + seconds)
    return Round(100.0 + seconds, clock, counts, "native", {0: 12_345, 1: 1})


def test_a_table_has_rates_from_the_second_round_on(golden: Golden) -> None:
    router = replace(whole(2), stations=None)
    parts = [
        [*lines(whole(), None, None)],
        [*lines(whole(2), whole(), None)],
        [*lines(whole(2), whole(), 80)],
        [*lines(router, replace(whole(), stations=None), None)],
    ]
    golden("forward.txt", "\n\n".join("\n".join(each) for each in parts) + "\n")


def test_what_has_happened_is_wrapped_and_harmless() -> None:
    news = ["port 2 (eth\x1b3) of l2: it is gone", f"{'a ' * 30}\nRemedy: none"]
    assert [*happened(news, 40)] == [
        "",
        "port 2 (eth\\x1b3) of l2: it is gone",
        "",
        ("a " * 20).strip(),
        ("a " * 10).strip(),
        "Remedy: none",
    ]


def test_in_generic_mode_every_interface_transmits() -> None:
    trouble = PortTrouble("no-transmit", "eth1 takes no redirected frames", "EOPNOTSUPP")
    counts = TableCounts("l3", 1, (replace(port(0, "eth1"), troubles=(trouble,)),))
    for mode, is_shown in (("native", True), ("generic", False)):
        found = replace(whole(), counts=counts, mode=mode, stations=None)
        assert ("! port 0: eth1 takes no redirected frames" in lines(found, None, None)) == is_shown


def test_broadcasts_that_end_early_in_generic_mode_are_told() -> None:
    down = PortTrouble("down", "eth2 is down", "ENETDOWN")

    def counts(failed: int) -> TableCounts:
        ports = (replace(port(1, "eth2"), state=PortState.DOWN, troubles=(down,)),)
        return TableCounts("l2", 2, ports, broadcast_errors=(PortError("ENETDOWN", failed),))

    before = replace(whole(), counts=counts(1_000), mode="generic")
    now = replace(whole(2), counts=counts(1_004), mode="generic")
    told = list(lines(now, before, None))
    assert "! port 1: eth2 is down: a broadcast ends here, and ports behind it get none" in told
    assert "! broadcasts that failed: ENETDOWN 1,004 (4 new)" in told
    assert "! port 1: eth2 is down" in lines(replace(now, mode="native"), None, None)


def test_json_has_all_that_is_counted_and_how_fast_it_goes(golden: Golden) -> None:
    golden("forward.json", json.dumps(to_dict(whole(2), whole()), indent=2) + "\n")


def test_an_interface_that_counts_anew_has_no_rate_until_the_next_round() -> None:
    before, now = whole(), whole(2)
    fresh = replace(now.counts.ports[0], received=3, received_bytes=200, sent=None)
    found = rates(fresh, now, before)
    assert found is not None
    assert (found.received, found.received_bits, found.sent) == (None, None, None)
    assert found.sent_bits is not None


def test_a_port_that_is_new_has_no_rates() -> None:
    assert rates(port(3, "eth4"), whole(2), whole()) is None


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("l2", "eth1"), "it takes 2 to 1,024"),
        (("l4", "eth1", "eth2"), "is not one of 'l2', 'l3'"),
        (("l3", "eth1", "eth2", "--ageing", 5), "a router (l3) learns none"),
        (("l2", "eth1", "eth2", "--interval", "nan"), "it has to be from 0.1 to 86,400"),
        (("l2", "eth1", "eth2", "--interval", "soon"), "it is none"),
        (("l2", "eth1", "eth2", "--duration", "5"), "it takes a number and a unit"),
        (("l2", "eth1", "eth2", "--mode", "offload"), "'offload' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(words: tuple[object, ...], cause: str) -> None:
    done = run("forward", *words)
    assert done.status == 2
    assert cause in done.messages


def test_the_examples_use_public_names_of_xdpkit_only() -> None:
    imported = {name for path in EXAMPLES.glob("*.py") for name in _imported(path)}
    assert imported
    for name in imported:
        package, *parts = name.split(".")
        if package == "xdpkit" and parts and parts[0] != "examples":
            assert parts[0] in PUBLIC, name
            assert not any(part.startswith("_") for part in parts), name


def _imported(path: Path) -> Iterator[str]:
    """Yield what a module imports: ``xdpkit.ports`` for ``from xdpkit import ports``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
