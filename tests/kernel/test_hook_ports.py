# SPDX-License-Identifier: Apache-2.0
"""Programs that are attached to ports know which one they are; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

import xdpkit
from tests.corpus import headed
from tests.kernel.multiqueue import line_into, scopes, streaming
from tests.kernel.net import Veth, make_veth
from tests.kernel.process import xdpkit_command
from xdpkit import Hook
from xdpkit.capabilities import Answer
from xdpkit.context import NO_PORT
from xdpkit.errors import HookBusy, MissingPrivilege, RequirementUnmet, UsageError
from xdpkit.hook import PortOf, XdpProg
from xdpkit.hook.ports import constant_ports
from xdpkit.kernel import Context, Map, load
from xdpkit.tables import entries, store
from xdpkit.tables.model import Identity, Port, PortSet, Table
from xdpkit.uapi.bpf import MapType

_KEY = struct.Struct("=III")
_COUNT = struct.Struct("=Q")


def obj(name: str = "ports") -> xdpkit.Object:
    """Return the object of a source."""
    return headed.read(Path(__file__).parent / "c" / f"{name}.c")


def spec(name: str) -> xdpkit.ProgramSpec:
    return obj().programs[name]


def identity(veth: Veth) -> Identity:
    seen = veth.interface
    return Identity(seen.name, seen.index, seen.netns_cookie, veth.netns, b"", "veth")


def make_table(
    name: str,
    ports: Mapping[int, Veth],
    pin_root: str,
    sets: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Make a table whose ports are called p0, p1 and so on."""
    members = {number: Port(number, f"p{number}", identity(veth)) for number, veth in ports.items()}
    chosen = tuple(PortSet(each, frozenset(numbers)) for each, numbers in (sets or {}).items())
    with store.create(name, pin_root=pin_root) as made, store.locked(made, "fill a table"):
        made.write(Table(name, made.size, tuple(members.values()), chosen))
        for number, veth in ports.items():
            index = veth.interface.index
            entries.set_entry(made, made.ports, number, index, veth.netns)
            entries.set_number(made.numbers, index, number)


class Frames:
    """What the programs have told: in which queue of which interface they were which port."""

    def __init__(self) -> None:
        self.map = Map.create(
            MapType.HASH, key_size=_KEY.size, value_size=_COUNT.size, max_entries=256, name="frames"
        )

    def told(self, veth: Veth) -> Counter[tuple[int, int]]:
        """Return how many frames of an interface each queue and port had."""
        found: Counter[tuple[int, int]] = Counter()
        for key, value in self.map.items():
            ifindex, queue, port = _KEY.unpack(key)
            if ifindex == veth.interface.index:
                found[queue, port] += _COUNT.unpack(value)[0]
        return found


@pytest.fixture
def frames() -> Iterator[Frames]:
    made = Frames()
    with made.map:
        yield made


def attach(veth: Veth, program: str, pin_root: str, frames: Frames, **terms: object) -> XdpProg:
    return hook(veth, pin_root).add(spec(program), maps={"frames": frames.map}, **terms)  # type: ignore[arg-type]


def hook(veth: Veth, pin_root: str) -> Hook:
    return Hook(veth.name, netns=veth.netns, pin_root=pin_root)


@pytest.fixture
def pair(netns: str, pin_root: str) -> dict[int, Veth]:
    """Two interfaces that are the ports 2 and 5 of the table lan."""
    ports = {2: make_veth(netns), 5: make_veth(netns)}
    make_table("lan", ports, pin_root)
    return ports


# What the packets say


def test_each_packet_has_the_number_of_the_port_that_it_came_in_by(
    netns: str, pin_root: str, frames: Frames
) -> None:
    ports = {number: make_veth(netns) for number in (0, 1, 2, 3, 9, 17, 40, 63)}
    make_table("lan", ports, pin_root)
    with ExitStack() as attached:
        for number, veth in ports.items():
            found = attached.enter_context(attach(veth, "port", pin_root, frames))
            assert found.port == PortOf("lan", number, f"p{number}")
        for number, veth in ports.items():
            with line_into(veth) as line:
                for queue in range(4):
                    line.send(queue, 5)
            assert frames.told(veth) == {(queue, number): 5 for queue in range(4)}


def test_a_program_for_some_queues_has_the_number_too(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[5]
    with ExitStack() as attached:
        attached.enter_context(attach(veth, "port", pin_root, frames))
        queues = hook(veth, pin_root).queues
        given = {"frames": frames.map}
        for each in (queues[1], queues[2:4]):
            found = attached.enter_context(each.add(spec("port_later"), maps=given))
            assert found.port == PortOf("lan", 5, "p5")
        with line_into(veth) as line:
            for queue in range(4):
                line.send(queue, 3)
    assert frames.told(veth) == {(0, 5): 3, (1, 1005): 3, (2, 1005): 3, (3, 1005): 3}


def test_one_loaded_program_looks_its_port_up_on_all(
    netns: str, pin_root: str, frames: Frames
) -> None:
    ports = {number: make_veth(netns) for number in range(8)}
    make_table("lan", ports, pin_root)
    with ExitStack() as resources:
        table = resources.enter_context(store.open("lan", pin_root=pin_root))
        program = resources.enter_context(
            load(
                spec("port"),
                maps={"frames": frames.map},
                context=Context(port_numbers=table.numbers),
            )
        )
        for veth in ports.values():
            found = resources.enter_context(hook(veth, pin_root).add(program))
            assert found.port == PortOf("lan")
        for number, veth in ports.items():
            with line_into(veth) as line:
                line.send(number % 4, 5)
            assert frames.told(veth) == {(number % 4, number): 5}


def test_a_program_that_is_tail_called_has_the_number(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[5]
    with attach(veth, "calls_port", pin_root, frames) as attached, line_into(veth) as line:
        line.send(0, 4)
        assert attached.port == PortOf("lan", 5, "p5")
    assert frames.told(veth) == {(0, 5): 4}


def test_a_program_reads_the_cookie_of_its_attach(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[2]
    with attach(veth, "cookie", pin_root, frames, cookie=77) as attached, line_into(veth) as line:
        line.send(0, 2)
        assert attached.port is None
    assert frames.told(veth) == {(0, 77): 2}


def test_a_port_is_replaced_under_traffic_and_counted_without_a_wrong_number(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth, place = pair[2], hook(pair[2], pin_root)
    given = {"frames": frames.map}
    with ExitStack() as attached, line_into(veth) as line:
        attached.enter_context(attach(veth, "port", pin_root, frames))
        with streaming(line, range(4)) as stream:
            for step in (
                lambda: attached.enter_context(place.replace(spec("port_later"), maps=given)),
                place.counters.enable,
                lambda: attached.enter_context(place.replace(spec("port"), maps=given)),
                place.counters.disable,
                lambda: attached.enter_context(place.queues[3].add(spec("port_later"), maps=given)),
                place.counters.enable,
            ):
                stream.go_on()
                step()
            stream.go_on()
        sent = line.sent - line.not_taken()
        told = frames.told(veth)
        assert {port for _, port in told} == {2, 1002}
        assert told.total() == sent
        assert set(scopes(place)) == {None, 3}
        assert constant_ports(veth.interface, pin_root=pin_root) == (PortOf("lan", 2, "p2"),)


# What is written down


def test_another_process_sees_the_port(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[5]
    attach(veth, "port", pin_root, frames).close()
    command = ["-n", veth.netns, "status", "--pin-root", pin_root]
    shown = xdpkit_command(*command)
    assert "port 5 (p5) of table lan" in shown.output
    assert "  port     port 5 (p5) of table lan\n" in xdpkit_command(*command, veth.name).output
    (found,) = json.loads(xdpkit_command(*command, "-j", veth.name).output)["interfaces"]
    record = found["attached"][0]["record"]
    assert record["port"] == {"table": "lan", "number": 5, "name": "p5"}
    with Hook(veth.name, netns=veth.netns, pin_root=pin_root).open() as opened:  # type: ignore[union-attr]
        assert opened.port == PortOf("lan", 5, "p5")


def test_the_ports_that_programs_have_are_known_also_of_those_that_may_come_back(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth, place = pair[2], hook(pair[2], pin_root)
    assert constant_ports(veth.interface, pin_root=pin_root) == ()
    attach(veth, "port", pin_root, frames).close()
    with place.replace(spec("plain"), revert_after=600):
        assert constant_ports(veth.interface, pin_root=pin_root) == (PortOf("lan", 2, "p2"),)
        place.confirm()
        assert constant_ports(veth.interface, pin_root=pin_root) == ()
    place.delete()


def test_a_program_of_a_tables_maps_only_has_no_number(
    pair: dict[int, Veth], pin_root: str
) -> None:
    with hook(pair[2], pin_root).add(spec("to_others")) as attached:
        assert attached.port == PortOf("lan")
        assert constant_ports(pair[2].interface, pin_root=pin_root) == ()
        with store.open("lan", pin_root=pin_root) as table:
            assert attached.maps["xdpkit_ports"].id == table.ports.id
    with hook(pair[2], pin_root).open() as opened:  # type: ignore[union-attr]
        assert "xdpkit_ports" in opened.maps
    hook(pair[2], pin_root).delete()


def test_a_program_that_asks_for_no_port_is_told_nothing(
    pair: dict[int, Veth], pin_root: str
) -> None:
    with hook(pair[2], pin_root).add(spec("plain")) as attached:
        assert attached.port is None
    hook(pair[2], pin_root).delete()


def test_a_dry_run_says_which_port_it_is_and_changes_nothing(
    pair: dict[int, Veth], pin_root: str
) -> None:
    veth = pair[5]
    path = str(obj().path)
    done = xdpkit_command(
        *("-n", veth.netns, "attach", veth.name, path, "--program", "port"),
        *("--pin-root", pin_root, "--dry-run"),
    )
    assert done.status == 0
    assert ", as port 5 (p5) of table lan, by a link" in done.output
    assert "reads port_index" in done.output
    assert "it is port 5 (p5) of table lan" in done.output
    assert hook(veth, pin_root).status().attached == ()


# What is refused


def refused(
    veth: Veth, program: str | xdpkit.Program, pin_root: str, **terms: object
) -> RequirementUnmet:
    """Return why a program is not attached."""
    given = spec(program) if isinstance(program, str) else program
    with pytest.raises(RequirementUnmet) as caught:
        hook(veth, pin_root).add(given, **terms)  # type: ignore[arg-type]
    assert hook(veth, pin_root).status().attached == ()
    return caught.value


def test_an_interface_that_is_no_port_is_refused_with_what_helps(
    pair: dict[int, Veth], netns: str, pin_root: str
) -> None:
    alone = make_veth(netns)
    for program, deed in (("port", "reads port_index"), ("to_others", "uses the port table")):
        error = refused(alone, program, pin_root)
        assert f"it {deed} at ports.c:" in error.cause
        assert f"{alone.name} is a port of no table" in error.cause
        assert error.remedy is not None
        command = f"xdpkit ports add -n {netns} --pin-root {pin_root} TABLE {alone.name}"
        assert command in error.remedy
    error = refused(alone, "calls_port", pin_root, ports="lan")
    assert f"{alone.name} is no port of table lan" in error.cause
    assert f"lan {alone.name}" in str(error.remedy)


def test_an_interface_of_several_tables_needs_a_name(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    make_table("wan", {7: pair[2]}, pin_root)
    error = refused(pair[2], "port", pin_root)
    assert f"{pair[2].name} is a port of several tables: lan, wan" in error.cause
    assert error.remedy == "say which: --ports lan"
    with (
        store.open("wan", pin_root=pin_root) as table,
        attach(pair[2], "port", pin_root, frames, ports=table) as attached,
    ):
        assert attached.port == PortOf("wan", 7, "p7")
    hook(pair[2], pin_root).delete()


def test_a_table_that_is_none_is_the_callers_mistake(pair: dict[int, Veth], pin_root: str) -> None:
    place = hook(pair[2], pin_root)
    with pytest.raises(UsageError, match="there is no port table nowhere"):
        place.add(spec("port"), ports="nowhere")
    with pytest.raises(UsageError, match="ports= is a port table, or its name"):
        place.add(spec("port"), ports=3)  # type: ignore[arg-type]


def test_a_set_that_the_table_has_not_is_refused_by_its_name(
    pair: dict[int, Veth], pin_root: str
) -> None:
    error = refused(pair[2], "to_guests", pin_root)
    assert "it uses port set guests at ports.c:" in error.cause
    assert "table lan has no set guests" in error.cause
    netns = pair[2].netns
    assert error.remedy == (f"xdpkit ports set -n {netns} --pin-root {pin_root} lan guests PORT...")


def test_a_set_of_the_table_is_the_programs(netns: str, pin_root: str) -> None:
    ports = {1: make_veth(netns), 2: make_veth(netns)}
    make_table("lan", ports, pin_root, sets={"guests": [2]})
    with (
        hook(ports[1], pin_root).add(spec("to_guests")) as attached,
        store.open("lan", pin_root=pin_root) as table,
    ):
        assert attached.maps["xdpkit_set_guests"].id == table.sets["guests"].id
    hook(ports[1], pin_root).delete()


def test_maps_of_the_callers_own_come_before_those_of_the_table(netns: str, pin_root: str) -> None:
    veth = make_veth(netns)
    with (
        Map.create(
            MapType.DEVMAP, key_size=4, value_size=8, max_entries=8, name="xdpkit_ports"
        ) as own,
        hook(veth, pin_root).add(spec("to_others"), maps={"xdpkit_ports": own}) as attached,
    ):
        assert attached.maps["xdpkit_ports"].id == own.id
        assert attached.port is None
    hook(veth, pin_root).delete()


def test_a_program_that_was_loaded_as_another_port_is_refused(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    given = {"frames": frames.map}
    with load(spec("port"), maps=given, context=Context(port_index=5)) as program:
        error = refused(pair[2], program, pin_root)
        name = pair[2].name
        assert f"it was loaded as port 5, and {name} is port 2 (p2) of table lan" in error.cause
        assert "PortTable.load()" in str(error.remedy)
        with hook(pair[5], pin_root).add(program) as attached:
            assert attached.port == PortOf("lan", 5, "p5")
            # Also by what another process knows of it.
            with xdpkit.Program.from_id(attached.program.id) as opened:
                assert "it was loaded as port 5" in refused(pair[2], opened, pin_root).cause
            with hook(pair[2], pin_root).add(spec("plain")) as present:
                with pytest.raises(RequirementUnmet, match="it was loaded as port 5"):
                    present.replace(program)
                assert present.program.id == hook(pair[2], pin_root).status().attached[0].program.id
    hook(pair[2], pin_root).delete()
    hook(pair[5], pin_root).delete()


def test_a_program_that_looks_its_port_up_in_another_table_is_refused(
    pair: dict[int, Veth], netns: str, pin_root: str, frames: Frames
) -> None:
    other = make_veth(netns)
    make_table("wan", {0: other}, pin_root)
    with (
        store.open("wan", pin_root=pin_root) as table,
        load(
            spec("port"),
            maps={"frames": frames.map},
            context=Context(port_numbers=table.numbers),
        ) as program,
    ):
        error = refused(pair[2], program, pin_root)
        where = f"{pair[2].name} is port 2 (p2) of table lan"
        assert f"it looks its port up in another table, and {where}" in error.cause
        with hook(other, pin_root).add(program) as attached:
            assert attached.port == PortOf("wan")
    hook(other, pin_root).delete()


def test_a_program_that_reads_another_cookie_is_refused(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    given = {"frames": frames.map}
    with load(spec("cookie"), maps=given, context=Context(cookie=7)) as program:
        place = hook(pair[2], pin_root)
        with pytest.raises(UsageError) as caught:
            place.add(program, cookie=8)
        assert "it was loaded with cookie 7, which it reads, and is to be given 8" in str(
            caught.value
        )
        assert caught.value.remedy == "attach it with cookie=7"
        place.add(program, cookie=7).close()
        place.delete()


def test_a_field_of_a_later_header_is_refused_by_its_name(
    pair: dict[int, Veth], pin_root: str
) -> None:
    later = obj("context_later").programs["reads_what_is_to_come"]
    with pytest.raises(RequirementUnmet) as caught:
        hook(pair[2], pin_root).add(later)
    assert "it reads phase_of_the_moon at context_later.c:" in caught.value.cause
    assert "this version of xdpkit does not provide it" in caught.value.cause


def test_tables_that_cannot_be_looked_at_are_unknown_and_not_taken_for_none(
    pair: dict[int, Veth], pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_: object, **__: object) -> NoReturn:
        raise MissingPrivilege("look for the port", cause="only root may look")

    monkeypatch.setattr(store, "find", find)
    veth = pair[2]
    found = xdpkit.check(spec("port"), veth.name, netns=veth.netns, pin_root=pin_root)
    (verdict,) = (each for each in found.verdicts if each.finding.capability == "port-index")
    assert verdict.answer is Answer.UNKNOWN
    with pytest.raises(MissingPrivilege):
        hook(veth, pin_root).add(spec("port"))
    assert hook(veth, pin_root).status().attached == ()


@pytest.mark.needs("xdp-frags")
def test_programs_that_disagree_on_frags_are_not_put_beside_each_other(
    pair: dict[int, Veth], pin_root: str
) -> None:
    hook(pair[2], pin_root).add(spec("to_others")).close()
    error = refused(pair[5], "to_others_in_pieces", pin_root)
    assert "the programs that use the table take frames in one buffer only" in error.cause
    assert error.remedy == 'recompile the program for SEC("xdp")'
    # It uses none of the maps that are to be agreed on.
    with hook(pair[5], pin_root).add(spec("plain_in_pieces")) as attached:
        assert attached.port == PortOf("lan")
    hook(pair[2], pin_root).delete()


def test_what_is_forced_has_no_port(netns: str, pin_root: str, frames: Frames) -> None:
    veth = make_veth(netns)
    with (
        attach(veth, "port", pin_root, frames, force=True) as attached,
        line_into(veth) as line,
    ):
        line.send(0, 2)
        assert attached.port is None
    assert frames.told(veth) == {(0, NO_PORT): 2}
    hook(veth, pin_root).delete()


def test_a_port_that_is_another_interfaces_meanwhile_is_not_taken(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[2]
    change = xdpkit.hook.prepare_add(
        hook(veth, pin_root).place, spec("port"), maps={"frames": frames.map}
    )
    with store.open("lan", pin_root=pin_root) as table, store.locked(table, "move a port"):
        before = table.read()
        moved = dataclasses.replace(before.ports[0], number=3, name="p3")
        table.write(dataclasses.replace(before, ports=(moved, *before.ports[1:])))
    with pytest.raises(HookBusy) as caught:
        change.apply()
    assert f"{veth.name} was port 2 (p2) of table lan, and is not any more" in caught.value.cause
    assert hook(veth, pin_root).status().attached == ()


def test_a_program_for_a_program_array_has_to_be_of_the_same_port(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    given = {"frames": frames.map}
    with (
        attach(pair[5], "calls_port", pin_root, frames) as attached,
        load(spec("port_later"), maps=given, context=Context(port_index=2)) as wrong,
        load(spec("port_later"), maps=given, context=Context(port_index=5)) as right,
    ):
        with pytest.raises(RequirementUnmet, match="it was loaded as port 2"):
            attached.maps["next"][0] = wrong
        attached.maps["next"][0] = right
        with line_into(pair[5]) as line:
            line.send(0, 2)
    assert frames.told(pair[5]) == {(0, 1005): 2}
    hook(pair[5], pin_root).delete()
