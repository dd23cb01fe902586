# SPDX-License-Identifier: Apache-2.0
"""What the screen of ``xdpkit monitor show`` shows, from made-up snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.unit.cli.reports import SECOND
from tests.unit.cli.snapshots import (
    HOSTILE,
    START,
    board,
    driver,
    error,
    failing,
    flood,
    many,
    normal,
    nothing_installed,
    snapshot,
    strange,
    where,
)
from xdpkit.cli.screen.board import Board, Place
from xdpkit.cli.screen.frame import Moment, Size, frame
from xdpkit.cli.screen.pages import content
from xdpkit.cli.screen.state import State, press
from xdpkit.cli.screen.text import ASCII, UNICODE, Glyphs, Line, Style, width_of
from xdpkit.hook.counters import CounterReport
from xdpkit.monitor.model import Snapshot, Tracepoints
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
        "an error of no interface": ["tab", *[DOWN] * 7, OPEN],
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
    now = next(line for line in lines if "returned 42" in line.text)
    past = next(line for line in lines if "firewall aborted" in line.text)
    assert now.text.startswith(" ! eth0")
    assert {span.style for span in now.spans} == {Style.ALARM}
    assert past.text.startswith(" · eth0")
    assert {span.style for span in past.spans} == {Style.PAST}


def test_an_error_that_was_just_seen_is_of_now_even_in_the_first_round() -> None:
    lines = shown(Board.of(failing(1)))
    now = next(line for line in lines if "returned 42" in line.text)
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
    gone = found.after(snapshot(30))
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


def test_of_a_long_name_the_end_is_shown() -> None:
    def machine(second: int) -> Snapshot:
        place = where("veth1a2b", 9, "net:[4026531840]")
        return snapshot(second, tracepoints=Tracepoints(errors=(error(second, on=place),)))

    assert any(line.text.startswith(">! …40]/veth1a2b  ") for line in shown(machine))
