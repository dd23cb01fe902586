# SPDX-License-Identifier: Apache-2.0
"""What the screen of ``xdpkit monitor show`` shows, from made-up snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.unit.cli.reports import SECOND
from tests.unit.cli.snapshots import (
    HOSTILE,
    attached,
    board,
    counters,
    failing,
    flood,
    many,
    normal,
    nothing_installed,
    returned,
    strange,
)
from tests.unit.monitor.snapshots import (
    START,
    cpumap,
    driver,
    error,
    redirect_error,
    snapshot,
    transmit,
    where,
)
from xdpkit.cli.screen.board import Board, Place
from xdpkit.cli.screen.frame import Moment, Size, frame
from xdpkit.cli.screen.pages import content
from xdpkit.cli.screen.state import State, press
from xdpkit.cli.screen.text import ASCII, UNICODE, Glyphs, Line, Style, width_of
from xdpkit.hook.counters import CounterReport
from xdpkit.monitor.model import Reason, Snapshot, Target
from xdpkit.rewrite import NoProgram

Golden = Callable[[str, str], None]
Machine = Callable[[int], Snapshot]

SMALL, LARGE = Size(80, 24), Size(200, 50)
MACHINES: dict[str, Machine] = {
    "normal": normal,
    "errors": failing,
    "flood": flood,
    "nothing-installed": nothing_installed,
    "many": many,
    "strange": strange,
}
MOMENT = Moment("14:02:33", START + 20 * SECOND, 1.0)
DOWN, OPEN = "down", "enter"


def shown(
    machine: Machine | Board,
    keys: Sequence[str] = (),
    size: Size = SMALL,
    *,
    glyphs: Glyphs = UNICODE,
    moment: Moment = MOMENT,
    netns: str | None = None,
) -> tuple[Line, ...]:
    """The frame that is there after some keys."""
    found = machine if isinstance(machine, Board) else board(machine)
    state = State()
    for key in keys:
        state = press(state, key, content(found, state, glyphs, netns=netns))
    page = content(found, state, glyphs, netns=netns)
    return frame(page, found, state, moment, size, glyphs)


def text(lines: Sequence[Line], width: int) -> str:
    """A frame in a box, so that its width is seen."""
    rule = f"+{'-' * width}+\n"
    rows = (f"|{line.text}{' ' * (width - width_of(line.text))}|\n" for line in lines)
    return f"{rule}{''.join(rows)}{rule}"


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x50"])
@pytest.mark.parametrize("name", MACHINES)
def test_the_whole_and_an_interface(name: str, size: Size, golden: Golden) -> None:
    frames = [shown(MACHINES[name], keys, size) for keys in ((), (OPEN,))]
    golden(
        f"screen-{name}-{size.width}x{size.height}.txt",
        "\n".join(text(lines, size.width) for lines in frames),
    )


def test_everything_can_be_opened(golden: Golden) -> None:
    frames = {
        "a program": [OPEN, OPEN],
        "a queue": [OPEN, "tab", "tab", DOWN, OPEN],
        "an error": ["tab", OPEN],
        "an error of no interface": ["tab", *[DOWN] * 8, OPEN],
        "a note": ["end", OPEN],
        "help": ["?"],
        "totals": ["t"],
    }
    golden(
        "screen-pages.txt",
        "\n".join(f"{name}\n{text(shown(failing, keys), 80)}" for name, keys in frames.items()),
    )


def test_a_terminal_without_unicode_gets_ascii_only(golden: Golden) -> None:
    frames = [shown(machine, glyphs=ASCII) for machine in (failing, strange)]
    found = "\n".join(text(lines, 80) for lines in frames)
    assert found.isascii()
    golden("screen-ascii.txt", found)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_frame_has_the_size_of_the_terminal_whatever_that_is(machine: Machine) -> None:
    found = board(machine, 4)
    paths = [(), (OPEN,), (OPEN, OPEN), ("tab", OPEN), ("end",), ("end", OPEN), ("?",)]
    for keys in paths:
        for size in (Size(1, 1), Size(40, 8), Size(57, 11), SMALL, Size(133, 30), LARGE):
            lines = shown(found, keys, size)
            assert len(lines) == size.height
            assert max(width_of(line.text) for line in lines) <= size.width


def test_a_terminal_that_is_too_small_is_told_so() -> None:
    lines = shown(normal, size=Size(39, 24))
    assert lines[0].text == "too small: needs 40 x 8; q quits"


def test_what_goes_wrong_is_marked_and_coloured_and_what_went_wrong_is_marked_otherwise() -> None:
    lines = shown(failing)
    now = next(line for line in lines if "returned numbers" in line.text)
    past = next(line for line in lines if "firewall aborted" in line.text)
    assert now.text.startswith(" ! eth0")
    assert {span.style for span in now.spans} == {Style.ALARM}
    assert past.text.startswith(" · eth0")
    assert {span.style for span in past.spans} == {Style.PAST}


def test_an_error_that_was_just_seen_is_of_now_even_in_the_first_round() -> None:
    lines = shown(Board.of(failing(1)))
    now = next(line for line in lines if "returned numbers" in line.text)
    assert now.text.startswith(" ! eth0")


def test_names_cannot_harm_the_terminal() -> None:
    for keys in [(), (OPEN,), (OPEN, OPEN), ("tab", OPEN), ("end", OPEN)]:
        found = "".join(line.text for line in shown(strange, keys))
        assert found.isprintable()
    assert not HOSTILE.isprintable()


def test_the_selected_row_stays_in_sight() -> None:
    for keys in (["end"], ["page-down"] * 5, ["tab"], ["tab", "up"]):
        chosen = [line for line in shown(many, keys) if line.is_selected]
        assert len(chosen) == 1
        assert chosen[0].text.startswith(">")


def test_scrolled_tables_say_what_part_is_shown() -> None:
    lines = [line.text for line in shown(many, ["end"])]
    assert any(line.startswith("   1-9/101") for line in lines)
    assert any(line.startswith("   91-99/99") for line in lines)


def test_rows_are_sorted_by_packets_by_errors_or_by_name() -> None:
    def interfaces(*keys: str) -> list[str]:
        return [line.text[3:].split()[0] for line in shown(many, keys)[3:6]]

    assert interfaces() == ["eth0", "veth099", "veth098"]
    assert interfaces("s") == ["veth099", "veth098", "veth097"]
    assert interfaces("s", "s") == ["eth0", "veth000", "veth001"]


def test_the_first_round_has_totals_but_no_rates() -> None:
    found = Board.of(normal(20))
    assert "126 k" in shown(found, ["t"])[3].text
    assert shown(found)[3].text.split()[2] == "–"


def test_an_interface_whose_programs_are_not_counted_says_how_to_count() -> None:
    lines = shown(normal, ["end", "home", DOWN, OPEN], Size(100, 24), netns="blue")
    assert any("to count: xdpkit counters enable -n blue eth1" in line.text for line in lines)


def test_packets_without_a_program_are_shown() -> None:
    def machine(second: int) -> Snapshot:
        base = normal(second)
        (report,) = base.returned
        unserved = {7: NoProgram(5 * second, 320 * second)}
        found: CounterReport = replace(report, no_program=unserved)
        return replace(base, returned=(found,))

    lines = [line.text for line in shown(machine, [OPEN])]
    assert any(line.startswith("   no program            5") for line in lines)
    assert any(line.startswith("   7                     5") for line in lines)


def test_what_is_wrong_with_the_last_round_is_said_at_the_bottom() -> None:
    moment = replace(MOMENT, problem="find eth0: there is no such interface")
    assert shown(normal, moment=moment)[-1].text == "! find eth0: there is no such interface"


def test_a_pause_is_seen() -> None:
    assert "PAUSED" in shown(normal, ["p"])[0].text
    assert "PAUSED" not in shown(normal, ["p", "p"])[0].text


def test_an_error_that_is_not_counted_any_more_says_so() -> None:
    found = board(failing)
    state = State()
    for key in ("tab", OPEN):
        state = press(state, key, content(found, state, UNICODE))
    gone = found.after(snapshot(at=30))
    page = content(gone, state, UNICODE)
    assert page.text[0].text == "This is not counted any more."


def test_interfaces_without_anything_to_say_are_shown_only_if_they_were_asked_for() -> None:
    idle = replace(normal(0), returned=(), attached=())
    assert Board.of(idle).places == ()
    asked = Board.of(idle, asked=["eth0", "eth9"])
    assert asked.places == (Place("", "eth0"), Place("", "eth1"), Place("", "eth9"))


def test_errors_of_other_interfaces_than_those_asked_for_are_not_shown() -> None:
    found = Board.of(failing(20), asked=["eth0"])
    assert {(each.netns, each.interface) for each in found.troubles} == {("", "eth0"), ("", "eth1")}
    assert ("blue", "tap0") not in found.places


def test_without_tracepoints_it_is_not_known_that_nothing_went_wrong() -> None:
    (eth0,) = (line.text for line in shown(nothing_installed) if line.text.startswith(">  eth0"))
    assert eth0.split()[10] == "–"


def test_bits_a_second_are_those_of_programs_or_else_of_the_driver() -> None:
    def machine(second: int) -> Snapshot:
        told = driver("eth1", {"packets": [second], "bytes": [125 * second, 125 * second]}, 3)
        return replace(normal(second), drivers=(told,))

    _, _, _, eth0, eth1, *_ = (line.text for line in shown(machine, size=LARGE))
    assert " 8.9 M " in eth0
    assert " 2.0 k " in eth1


def test_counters_that_cannot_be_read_are_not_taken_for_missing_ones() -> None:
    found = Board.of(snapshot(installed=None, unread="the pins of \x1b[2J are gone (ENOENT)"))
    _, status, *body, _ = (line.text for line in shown(found))
    said = "errors cannot be read: the pins of \\x1b[2J are gone (ENOENT)"
    assert status.startswith(said)
    assert f"   ! {said}" in body
    assert not any("monitor install" in line for line in (status, *body))


def test_drivers_are_no_reason_to_install_what_is_there_but_cannot_be_read() -> None:
    told = driver("eth1", {"tx_errors": [4]}, 3)
    absent, unread = (
        Board.of(snapshot(installed=None, unread=why, drivers=(told,))).troubles
        for why in (None, "no")
    )
    assert [each.remedy is None for each in (*absent, *unread)] == [False, True]


@pytest.mark.parametrize(
    ("packets", "returned", "what"),
    [
        (1, 42, "firewall returned 42: no action"),
        (1, 0xFFFFFFFF, "firewall returned 4294967295 (-1): no action"),
        (2, 42, "firewall returned numbers that are no action, at last 42"),
    ],
)
def test_only_the_last_of_several_numbers_is_known(packets: int, returned: int, what: str) -> None:
    invalid = error(action="invalid", reason=Reason.INVALID, packets=packets, returned=returned)
    (found,) = Board.of(snapshot(invalid)).troubles
    assert found.what == what


def test_a_frame_that_is_sent_back_was_not_redirected() -> None:
    transmits = (
        transmit(None, where=where(), sent=1, dropped=3, error="ENXIO"),
        transmit(where("eth1", 3), where=where(), sent=1, dropped=2),
    )
    back, redirected = Board.of(snapshot(transmits=transmits)).troubles
    assert (back.what, back.details[0]) == ("could not send back: ENXIO", ("by", "tx"))
    assert redirected.what == "not sent, from eth1"


def test_a_frame_that_found_a_queue_full_in_generic_mode_is_shown_once() -> None:
    to = Target("cpumap", "cpu 3", 0, 9, 3)
    full = redirect_error(target=to, error="ENOSPC", packets=5)
    other = redirect_error(target=Target("cpumap", "cpu 3", 0, 8, 3), error="ENOSPC", packets=1)

    def found(queue_full: int) -> list[tuple[str, int]]:
        counts = (cpumap(3, queue_full=queue_full),)
        board = Board.of(snapshot(redirect_errors=(full, other), cpumaps=counts))
        return [(each.what, each.packets) for each in board.troubles]

    redirects = ("firewall → cpu 3: ENOSPC", 6)
    assert found(5) == found(4) == [redirects]
    assert found(12) == [("cpus, cpu 3: queue full", 7), redirects]


def test_cpumaps_of_one_name_are_one_row() -> None:
    counts = tuple(cpumap(1, map_id=number, queue_full=3, no_memory=4) for number in (7, 8))
    found = Board.of(snapshot(cpumaps=counts))
    assert [(each.what, each.packets) for each in found.troubles] == [
        ("cpus, cpu 1: no memory", 8),
        ("cpus, cpu 1: queue full", 6),
    ]
    assert found.troubles[0].details[0] == ("cpumap", "cpus (id 7, 8)")


def test_of_many_namespaces_those_where_nothing_happens_are_left_out_and_own_ones_come_first() -> (
    None
):
    quiet, recent, growing, forwarding = (
        where("eth0", 2, netns) for netns in ("quiet", "recent", "growing", "forwarding")
    )

    def machine(second: int) -> Snapshot:
        return snapshot(
            error(quiet, packets=9),
            error(recent, packets=9, last_seen=START - SECOND),
            error(growing, packets=9 + second),
            error(where("eth9", 9), packets=1),
            at=second,
            transmits=(
                transmit(quiet, where=quiet, sent=70, dropped=0),
                transmit(where(), where=forwarding, sent=70 * second, dropped=0),
            ),
        )

    first = Board.of(machine(0))
    assert first.places == (Place("", "eth9"), Place("recent", "eth0"))
    second = first.after(machine(1))
    assert second.places == (
        Place("", "eth9"),
        Place("forwarding", "eth0"),
        Place("growing", "eth0"),
        Place("recent", "eth0"),
    )
    for keys in [(), ("s",), ("s", "s")]:
        assert shown(second, keys)[3].text.startswith(">· eth9 ")
    # What went wrong there is still told.
    assert "quiet" in {each.netns for each in second.troubles}


def test_a_program_is_found_by_its_full_name_and_by_what_the_kernel_has_of_it() -> None:
    def machine(second: int) -> Snapshot:
        name = "a_firewall_with_a_long_name"
        base = normal(second)
        report = counters("eth0", {name: {0: returned(0, second)}})
        programs = [name, name[:15], "a_firewall"]
        return replace(base, returned=(report,), attached=attached("eth0", programs))

    lines = [line.text for line in shown(machine, [OPEN, OPEN])]
    assert [line.split()[1] for line in lines if line.startswith("id ")] == ["40", "41"]


@pytest.mark.parametrize("size", [Size(40, 8), Size(40, 12), Size(40, 16), SMALL])
def test_a_text_is_wrapped_and_what_does_not_fit_is_said(size: Size) -> None:
    note = " ".join(f"word{number}" for number in range(60))

    def machine(second: int) -> Snapshot:
        return snapshot(attach_failures={note: second})

    _, _, *body, _ = (line.text for line in shown(machine, ["tab", OPEN], size))
    read = " ".join(body)
    last = [line for line in body if line.strip()][-1]
    words = [f"word{number}" for number in range(60) if f"word{number} " in f"{read} "]
    assert words == [f"word{number}" for number in range(len(words))]
    assert len(words) == 60 or last.endswith("more lines, for a larger terminal")
    assert size != SMALL or len(words) == 60


def test_of_a_long_title_the_interface_is_shown() -> None:
    def machine(second: int) -> Snapshot:
        place = where("veth1a2b", 9, "net:[4026531840]")
        return snapshot(error(place, packets=second), at=second)

    assert any(line.text.startswith(">! net…/veth1a2b  ") for line in shown(machine))
