# SPDX-License-Identifier: Apache-2.0
"""Programs that are attached to ports know which one they are; what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

import xdpkit
from tests.corpus import headed
from tests.kernel.multiqueue import line_into, scopes, streaming
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from tests.kernel.ports_net import delete, make_again, make_with_indexes
from tests.kernel.process import xdpkit_command
from xdpkit import Hook, PortTable
from xdpkit.capabilities import Answer
from xdpkit.context import NO_PORT
from xdpkit.errors import HookBusy, MissingPrivilege, RequirementUnmet, UsageError
from xdpkit.hook import PortOf, XdpProg
from xdpkit.hook.ports import users_of
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


def told(attached: XdpProg) -> PortOf | None:
    """Return what a program was told, without which of the tables of that name it was."""
    port = attached.port
    return port and dataclasses.replace(port, table_id=0)


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
            assert told(found) == PortOf("lan", number, f"p{number}")
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
            assert told(found) == PortOf("lan", 5, "p5")
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
            assert told(found) == PortOf("lan")
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
        assert told(attached) == PortOf("lan", 5, "p5")
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
        names = {user.name for user in users_of("lan", 2, pin_root=pin_root)}
        assert names == {"port", "port_later"}


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
        assert told(opened) == PortOf("lan", 5, "p5")


def test_the_ports_that_programs_have_are_known_also_of_those_that_may_come_back(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth, place = pair[2], hook(pair[2], pin_root)
    assert users_of("lan", pin_root=pin_root) == ()
    with attach(veth, "port", pin_root, frames) as attached:
        number = attached.program.id
    (user,) = users_of("lan", 2, pin_root=pin_root)
    assert str(user) == f"program {number} (port) on {veth.name}"
    assert users_of("lan", 5, pin_root=pin_root) == ()
    with place.replace(spec("plain"), revert_after=600):
        (user,) = users_of("lan", 2, pin_root=pin_root)
        assert user.comes_back
        assert str(user).endswith(f"on {veth.name}, which comes back unless a change is confirmed")
        place.confirm()
        assert users_of("lan", pin_root=pin_root) == ()
    place.delete()


def test_a_port_that_a_program_has_is_known_wherever_the_interface_goes(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[2]
    with ExitStack() as resources:
        attach(veth, "port", pin_root, frames).close()
        elsewhere = resources.enter_context(namespace())
        with (
            open(f"/run/netns/{elsewhere}", "rb") as target,
            rtnetlink(veth.netns) as connection,
        ):
            connection.link("set", index=veth.interface.index, net_ns_fd=target.fileno())
        (user,) = users_of("lan", 2, pin_root=pin_root)
        assert (user.interface, user.comes_back) == (veth.name, False)


def test_a_program_for_a_queue_has_its_port_also_while_it_may_come_back(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[5]
    given = {"frames": frames.map}
    with hook(veth, pin_root).queues[1].add(spec("port"), maps=given):
        assert [user.port.number for user in users_of("lan", pin_root=pin_root)] == [5]
        with hook(veth, pin_root).queues[1].replace(spec("plain"), revert_after=600):
            (user,) = users_of("lan", 5, pin_root=pin_root)
            assert user.comes_back
            hook(veth, pin_root).confirm()
    assert users_of("lan", 5, pin_root=pin_root) == ()
    hook(veth, pin_root).queues[1].delete()


def test_a_program_that_looks_its_port_up_uses_the_table_and_no_number(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    with (
        store.open("lan", pin_root=pin_root) as table,
        load(
            spec("port"),
            maps={"frames": frames.map},
            context=Context(port_numbers=table.numbers),
        ) as program,
        hook(pair[2], pin_root).add(program),
    ):
        assert [user.id for user in users_of("lan", pin_root=pin_root)] == [program.id]
        assert users_of("lan", 2, pin_root=pin_root) == ()
    hook(pair[2], pin_root).delete()


def test_a_table_that_has_the_name_of_one_before_has_none_of_its_programs(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[5]
    attach(veth, "port", pin_root, frames).close()
    shown = ["-n", veth.netns, "status", "--pin-root", pin_root]
    store.destroy("lan", pin_root=pin_root)
    assert "port 5 (p5) of table lan that is gone" in xdpkit_command(*shown).output
    make_table("lan", {5: pair[2]}, pin_root)
    assert users_of("lan", pin_root=pin_root) == ()
    assert "port 5 (p5) of table lan that is gone" in xdpkit_command(*shown).output
    attach(pair[2], "port", pin_root, frames).close()
    (user,) = users_of("lan", 5, pin_root=pin_root)
    assert user.interface == pair[2].name
    hook(pair[2], pin_root).delete()
    hook(veth, pin_root).delete()


def test_the_users_of_a_table_that_there_is_not_are_nobodys(pin_root: str) -> None:
    with pytest.raises(UsageError, match="there is no port table lan"):
        users_of("lan", pin_root=pin_root)


def test_a_program_of_a_tables_maps_only_has_no_number(
    pair: dict[int, Veth], pin_root: str
) -> None:
    with hook(pair[2], pin_root).add(spec("to_others")) as attached:
        assert told(attached) == PortOf("lan")
        assert [user.name for user in users_of("lan", pin_root=pin_root)] == ["to_others"]
        assert users_of("lan", 2, pin_root=pin_root) == ()
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
    for program, deed in (
        ("port", "reads port_index at ports.c:"),
        ("to_others", "uses the port table at xdpkit.h:"),
    ):
        error = refused(alone, program, pin_root)
        assert f"it {deed}" in error.cause
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
        assert told(attached) == PortOf("wan", 7, "p7")
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
    assert "it uses port set guests at xdpkit.h:" in error.cause
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
            assert told(attached) == PortOf("lan", 5, "p5")
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
            assert told(attached) == PortOf("wan")
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
        assert told(attached) == PortOf("lan")
    hook(pair[2], pin_root).delete()


def test_what_is_forced_has_no_port_and_that_is_said(
    netns: str, pin_root: str, frames: Frames
) -> None:
    veth = make_veth(netns)
    with (
        attach(veth, "port", pin_root, frames, force=True) as attached,
        line_into(veth) as line,
    ):
        line.send(0, 2)
        assert attached.port is None
        assert "it reads XDPKIT_NO_PORT as port_index" in attached.notes
    assert frames.told(veth) == {(0, NO_PORT): 2}
    with hook(veth, pin_root).replace(spec("to_guests"), force=True) as attached:
        assert "the port maps that it uses are its own, and no port is in them" in attached.notes
        assert attached.maps["xdpkit_set_guests"].max_entries > 0
    hook(veth, pin_root).delete()


def test_a_loaded_program_that_is_forced_keeps_its_number(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[2]
    with (
        load(spec("port"), maps={"frames": frames.map}, context=Context(port_index=5)) as program,
        hook(veth, pin_root).add(program, force=True) as attached,
        line_into(veth) as line,
    ):
        line.send(0, 1)
        assert (attached.port, [each for each in attached.notes if "NO_PORT" in each]) == (None, [])
    assert frames.told(veth) == {(0, 5): 1}
    hook(veth, pin_root).delete()


def test_what_is_forced_is_not_told_that_it_has_no_port_where_it_has_several(
    pair: dict[int, Veth], pin_root: str
) -> None:
    make_table("wan", {7: pair[2]}, pin_root)
    place = hook(pair[2], pin_root)
    with pytest.raises(UsageError) as caught:
        place.add(spec("port"), force=True)
    assert caught.value.cause == f"{pair[2].name} is a port of several tables: lan, wan"
    assert caught.value.remedy == "say which: --ports lan"
    assert place.status().attached == ()


def test_a_program_that_does_without_is_attached_without(
    pair: dict[int, Veth], netns: str, pin_root: str
) -> None:
    optional = obj("ports_optional").programs["optional"]
    alone = make_veth(netns)
    found = xdpkit.check(optional, alone.name, netns=netns, pin_root=pin_root)
    assert {each.requirement.capability for each in found.degraded} >= {
        "port-index",
        "port-table",
        "port-set:guests",
    }
    with hook(alone, pin_root).add(optional) as attached, line_into(alone) as line:
        assert attached.port is None
        line.send(0, 1)
        assert attached.maps[".bss"][0]["read"] == NO_PORT
        assert attached.maps["xdpkit_ports"].max_entries > 0
    # It lacks the set only, and has the table's ports.
    with (
        hook(pair[5], pin_root).add(optional) as attached,
        store.open("lan", pin_root=pin_root) as table,
    ):
        assert told(attached) == PortOf("lan", 5, "p5")
        assert attached.maps["xdpkit_ports"].id == table.ports.id
        assert attached.maps["xdpkit_set_guests"].id not in {
            each.id for each in table.maps().values()
        }
    for veth in (alone, pair[5]):
        hook(veth, pin_root).delete()


def test_a_table_that_is_named_has_to_be_there_whatever_the_program_asks_for(
    pair: dict[int, Veth], pin_root: str
) -> None:
    veth = pair[2]
    for name, cause in (
        ("nowhere", "there is no port table nowhere"),
        ("../lan", "such a name is 1 to 32 of"),
    ):
        with pytest.raises(UsageError) as caught:
            hook(veth, pin_root).add(spec("plain"), ports=name)
        assert caught.value.what == f"attach plain to {veth.name} in native mode"
        assert caught.value.cause.startswith(cause)
        with pytest.raises(UsageError, match=rf"check plain: {cause}"):
            xdpkit.check(spec("plain"), veth.name, netns=veth.netns, ports=name, pin_root=pin_root)
    with pytest.raises(UsageError) as caught:
        xdpkit.check(spec("port"), veth.name, netns=veth.netns, ports="wan", pin_root=pin_root)
    assert caught.value.remedy == "see which there are: xdpkit ports show"


def test_a_stranger_with_the_index_of_a_port_is_no_port(netns: str, pin_root: str) -> None:
    make_with_indexes(netns, {"first": 100})
    first = Veth("first", netns, "firstp", netns)
    make_table("lan", {3: first}, pin_root)
    delete(first)
    make_with_indexes(netns, {"second": 100})
    second = Veth("second", netns, "secondp", netns)
    assert second.interface.index == 100
    assert "second is a port of no table" in refused(second, "port", pin_root).cause


def test_a_port_that_was_made_anew_is_one_again_when_its_table_has_followed(
    pair: dict[int, Veth], pin_root: str
) -> None:
    veth = pair[2]
    delete(veth)
    make_again(veth)
    error = refused(veth, "port", pin_root)
    assert (
        f"{veth.name} was port 2 (p2) of table lan before it was made anew, and is so again once"
        " the table has followed" in error.cause
    )
    assert error.remedy == (
        f"follow the table first: xdpkit.PortTable.open('lan', pin_root={pin_root!r}).follow(),"
        " or run xdpkit ports watch"
    )
    # It would be told that it has none.
    assert "before it was made anew" in refused(veth, "port", pin_root, force=True).cause
    command = ("--pin-root", pin_root, "--program", "port", veth.name, str(obj().path))
    done = xdpkit_command("-n", veth.netns, "attach", "--dry-run", *command)
    assert (done.status, "before it was made anew" in done.messages) == (3, True)
    with PortTable.open("lan", pin_root=pin_root) as table:
        assert len(table.follow()) == 1
    with hook(veth, pin_root).add(spec("port")) as attached:
        assert told(attached) == PortOf("lan", 2, "p2")
    hook(veth, pin_root).delete()


@pytest.mark.parametrize("verb", ["attach", "replace", "check"])
def test_a_command_has_the_table_follow_a_port_that_was_made_anew(
    pair: dict[int, Veth], pin_root: str, verb: str
) -> None:
    veth = pair[2]
    delete(veth)
    make_again(veth)
    if verb == "replace":
        hook(veth, pin_root).add(spec("plain")).close()
    command = ("--pin-root", pin_root, "--program", "port", veth.name, str(obj().path))
    done = xdpkit_command("-n", veth.netns, verb, *command)
    assert done.status == 0, done.messages
    assert "port 2 (p2) of table lan" in done.output
    assert f"port 2 (p2) of lan: {veth.name} is there again" in done.messages
    if verb != "check":
        (user,) = users_of("lan", 2, pin_root=pin_root)
        assert user.interface == veth.name
        hook(veth, pin_root).delete()


def write_sets(pin_root: str, *sets: PortSet) -> None:
    with store.locked("lan", "change the sets", pin_root=pin_root) as table:
        table.write(dataclasses.replace(table.read(), sets=sets))


def destroy(pair: dict[int, Veth], pin_root: str) -> None:
    store.destroy("lan", pin_root=pin_root)


def create_anew(pair: dict[int, Veth], pin_root: str) -> None:
    destroy(pair, pin_root)
    make_table("lan", pair, pin_root, sets={"guests": [2]})


def unset(pair: dict[int, Veth], pin_root: str) -> None:
    write_sets(pin_root)


def set_anew(pair: dict[int, Veth], pin_root: str) -> None:
    unset(pair, pin_root)
    write_sets(pin_root, PortSet("guests", frozenset({2})))


CHANGES = [
    (destroy, "port table lan was destroyed meanwhile"),
    (create_anew, "port table lan was destroyed, and created anew, meanwhile"),
    (unset, "its map xdpkit_set_guests is not the one of table lan any more"),
    (set_anew, "its map xdpkit_set_guests is not the one of table lan any more"),
]


@pytest.mark.parametrize(
    ("change", "cause"), CHANGES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_table_that_is_another_one_when_its_program_is_loaded_is_noticed(
    pair: dict[int, Veth],
    pin_root: str,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[int, Veth], str], None],
    cause: str,
) -> None:
    set_anew(pair, pin_root)
    load_it = xdpkit.kernel.load

    def load_and_change(*given: Any, **more: Any) -> xdpkit.Program:
        loaded = load_it(*given, **more)
        change(pair, pin_root)
        return loaded

    monkeypatch.setattr(xdpkit.kernel, "load", load_and_change)
    place = hook(pair[2], pin_root)
    with pytest.raises(HookBusy) as caught:
        place.add(spec("to_guests"))
    assert (caught.value.cause, caught.value.remedy) == (cause, "try it again")
    assert place.status().attached == ()


@pytest.mark.parametrize(("change", "cause"), CHANGES[:2], ids=["destroyed", "created anew"])
@pytest.mark.parametrize("is_loaded", [False, True], ids=["spec", "loaded"])
def test_a_table_that_is_another_one_since_a_change_was_prepared_is_noticed(
    pair: dict[int, Veth],
    pin_root: str,
    change: Callable[[dict[int, Veth], str], None],
    cause: str,
    is_loaded: bool,
) -> None:
    place = hook(pair[2], pin_root)
    with ExitStack() as resources:
        program: xdpkit.Program | xdpkit.ProgramSpec = spec("port")
        if is_loaded:
            with store.open("lan", pin_root=pin_root) as table:
                context = Context(port_numbers=table.numbers)
                program = resources.enter_context(load(spec("port"), context=context))
        prepared = xdpkit.hook.prepare_add(place.place, program)
        change(pair, pin_root)
        with pytest.raises(HookBusy) as caught:
            prepared.apply()
        assert (caught.value.cause, caught.value.remedy) == (cause, "try it again")
    assert place.status().attached == ()


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


# What another process has loaded


def test_what_another_process_loaded_with_a_number_is_not_known(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    veth = pair[2]
    why = "another process loaded it, and did not keep what it reads as port_index and cookie"
    with (
        load(spec("port"), maps={"frames": frames.map}, context=Context(port_index=5)) as loaded,
        xdpkit.Program.from_id(loaded.id) as opened,
    ):
        found = xdpkit.check(opened, veth.name, netns=veth.netns, pin_root=pin_root)
        (verdict,) = (each for each in found.verdicts if each.finding.capability == "port-index")
        assert (verdict.answer, verdict.why) == (Answer.UNKNOWN, f"not known: {why}")
        error = refused(veth, opened, pin_root, policy="strict")
        assert f"reads port_index: not known: {why}" in str(error)
        with hook(veth, pin_root).add(opened) as attached:
            assert attached.port is None
    hook(veth, pin_root).delete()


def test_what_another_process_loaded_to_look_its_port_up_is_known_by_the_map_that_it_has(
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
        ) as loaded,
        xdpkit.Program.from_id(loaded.id) as opened,
    ):
        error = refused(pair[2], opened, pin_root)
        assert "it looks its port up in another table" in error.cause
        with hook(other, pin_root).add(opened) as attached:
            assert told(attached) == PortOf("wan")
    hook(other, pin_root).delete()


def test_a_program_of_another_process_in_a_program_array_is_not_known_either(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    with (
        attach(pair[5], "calls_port", pin_root, frames, policy="strict") as attached,
        load(
            spec("port_later"), maps={"frames": frames.map}, context=Context(port_index=2)
        ) as loaded,
    ):
        with pytest.raises(RequirementUnmet, match="reads port_index: not known: another process"):
            attached.maps["next"][0] = loaded.fileno()
        with pytest.raises(RequirementUnmet, match="it was loaded as port 2"):
            attached.maps["next"][0] = loaded
    hook(pair[5], pin_root).delete()


def test_a_program_for_a_program_array_has_to_read_the_same_cookie(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    given = {"frames": frames.map}
    with (
        attach(pair[5], "calls_port", pin_root, frames, cookie=7) as attached,
        load(spec("cookie"), maps=given, context=Context(cookie=8)) as wrong,
        load(spec("cookie"), maps=given, context=Context(cookie=7)) as right,
    ):
        with pytest.raises(UsageError) as caught:
            attached.maps["next"][0] = wrong
        assert caught.value.what == f"put cookie into next of {pair[5].name}"
        assert "loaded with cookie 8, which it reads, and is to be given 7" in caught.value.cause
        attached.maps["next"][0] = right
        with line_into(pair[5]) as line:
            line.send(0, 2)
    assert frames.told(pair[5]) == {(0, 7): 2}
    hook(pair[5], pin_root).delete()


def test_a_program_is_put_into_a_program_array_also_when_the_table_has_gone(
    pair: dict[int, Veth], pin_root: str, frames: Frames
) -> None:
    with (
        attach(pair[5], "calls_port", pin_root, frames, ports="lan") as attached,
        load(spec("plain")) as plain,
    ):
        store.destroy("lan", pin_root=pin_root)
        attached.maps["next"][0] = plain
        assert attached.maps["next"][0] == plain.id
    hook(pair[5], pin_root).delete()
