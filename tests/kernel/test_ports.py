# SPDX-License-Identifier: Apache-2.0
"""Port tables: what commands do, and what they refuse."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from typing import Any

import pytest

import xdpkit
from tests.kernel.net import Veth, make_veth, namespace
from tests.kernel.ports_net import (
    delete,
    egress,
    in_map,
    left,
    make_again,
    move,
    numbers,
    received,
    receiving,
    sending,
    set_link,
    source,
)
from xdpkit import Hook, PortTable, ports
from xdpkit.errors import HookBusy, RequirementUnmet, UsageError
from xdpkit.interfaces.observation import GRO
from xdpkit.ports.peers import CHECKSUMS, VLAN_TAGS
from xdpkit.syscalls import bpf
from xdpkit.syscalls.ethtool import offloads_of, set_offloads
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.tables.frags import _user
from xdpkit.tables.model import PortSet
from xdpkit.uapi.bpf import ProgFlags, XdpAction


def gro_of_peer(veth: Veth) -> bool:
    with entered(veth.peer_netns), NetlinkSocket() as connection:
        return offloads_of(connection, veth.peer, GRO)[GRO].active


def test_an_interface_gets_a_number_and_is_sent_to_by_it(netns: str, pin_root: str) -> None:
    first, second = make_veth(netns), make_veth(netns)
    with receiving(first, second), PortTable.create("lan", pin_root=pin_root) as lan:
        assert lan.add(first.name, netns=netns).number == 0
        port = lan.add(second.name, netns=netns, number=7, name="uplink")
        assert (port.number, port.name, port.egress, port.prepared) == (7, "uplink", None, ())
        assert port.interface is not None
        assert port.interface.place == (second.interface.netns_cookie, second.interface.index)
        assert lan.state().ports == (lan.port(first.name), port)
        assert numbers(lan) == {first.interface.index: 0, second.interface.index: 7}
        with sending(lan, 7) as sender:
            sender.reach(second)
        assert received(first) == 0
        lan.destroy(force=True)
    assert left(pin_root) == {}


def test_a_table_outlives_who_made_it(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", size=8, pin_root=pin_root) as made:
        made.add(veth.name, netns=veth.netns, force=True)
    assert ports.tables(pin_root) == ["lan"]
    with PortTable.open("lan", pin_root=pin_root) as lan:
        assert lan.size == 8
        assert [port.name for port in lan.state().ports] == [veth.name]
        assert in_map(lan) == {0: (veth.interface.index, 0)}


def test_what_cannot_be_sent_to_is_refused_with_the_remedy(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        with pytest.raises(
            RequirementUnmet, match=r"no(?:r| native program, and no) GRO"
        ) as caught:
            lan.add(veth.name, netns=veth.netns)
        assert caught.value.what == f"add {veth.name} to port table lan"
        assert caught.value.remedy is not None
        assert "--prepare" in caught.value.remedy
        assert lan.state().ports == ()
        assert in_map(lan) == {}


def test_what_is_prepared_is_undone_when_the_port_is_removed(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        port = lan.add(veth.name, netns=veth.netns, prepare="gro")
        assert "gro" in [each.what for each in port.prepared]
        assert gro_of_peer(veth)
        assert lan.follow() == ()
        assert lan.remove(veth.name) == ()
        assert not gro_of_peer(veth)
        assert lan.port(0).prepared == ()


def test_what_cannot_be_prepared_leaves_no_trace(veth: Veth, pin_root: str) -> None:
    # Its peer has a program already, which is not ours to replace.
    with Hook(veth.peer, netns=veth.peer_netns, pin_root=pin_root).add(
        source("ports").programs["plain"], mode="generic"
    ):
        with PortTable.create("lan", pin_root=pin_root) as lan:
            with pytest.raises(HookBusy):
                lan.add(veth.name, netns=veth.netns, prepare="program")
            assert lan.state().ports == ()
            assert in_map(lan) == {}
        Hook(veth.peer, netns=veth.peer_netns, pin_root=pin_root).delete()


def test_an_interface_is_one_port_of_a_table(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=veth.netns, force=True)
        with pytest.raises(UsageError) as caught:
            lan.add(veth.interface.index, netns=veth.netns, name="again", force=True)
        assert caught.value.cause == f"it is port 0 ({veth.name}) already"
    with PortTable.create("other", pin_root=pin_root) as other:
        assert other.add(veth.name, netns=veth.netns, force=True).number == 0


def test_an_interface_that_moved_is_the_port_that_it_was(veth: Veth, pin_root: str) -> None:
    with namespace() as other, PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=veth.netns, force=True)
        moved = move(veth, other)
        with pytest.raises(UsageError, match=f"it is port 0 \\({veth.name}\\) already"):
            lan.add(moved.name, netns=other, force=True)
        assert in_map(lan) == {0: (moved.interface.index, 0)}
        assert lan.interfaces()[0].place == (
            moved.interface.netns_cookie,
            moved.interface.index,
        )


def test_an_interface_that_is_not_there_is_refused(netns: str, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        with pytest.raises(UsageError, match="has no such interface"):
            lan.add("nowhere0", netns=netns)
        assert lan.state().ports == ()


def test_a_removed_port_keeps_its_number_until_it_is_freed(netns: str, pin_root: str) -> None:
    first, second = make_veth(netns), make_veth(netns)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(first.name, netns=netns, force=True)
        lan.remove(first.name)
        assert in_map(lan) == {}
        assert numbers(lan) == {}
        assert lan.add(second.name, netns=netns, force=True).number == 1
        assert lan.add(first.name, netns=netns, force=True).number == 0
        lan.remove(0, free=True)
        assert [port.number for port in lan.state().ports] == [1]
        assert lan.add(first.name, netns=netns, name="other", force=True).number == 0


def test_a_number_that_a_program_has_in_its_instructions_is_not_given_away(
    netns: str, pin_root: str
) -> None:
    veth, other = make_veth(netns), make_veth(netns)
    hook = Hook(veth.name, netns=netns, pin_root=pin_root)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=netns, number=3, force=True)
        lan.set("guests", [3])
        attached = hook.add(source("ports").programs["port"], force=True)
        attached.close()
        cause = (
            f"program {attached.program.id} (port) on {veth.name}: attached as that of port 3, with"
            " the number in its instructions"
        )
        with pytest.raises(HookBusy) as caught:
            lan.remove(3, free=True)
        assert caught.value.cause == cause
        assert in_map(lan) == {3: (veth.interface.index, 0)}
        with pytest.raises(HookBusy) as caught:
            lan.destroy()
        assert caught.value.cause == cause
        # Nor in two steps, nor to another interface under the name.
        lan.remove(3)
        with pytest.raises(HookBusy) as caught:
            lan.remove(3, free=True)
        assert caught.value.cause == cause
        with pytest.raises(HookBusy) as caught:
            lan.add(other.name, netns=netns, name=veth.name, force=True)
        assert caught.value.cause == cause
        assert caught.value.remedy == "detach it first; or choose another name and number"
        assert lan.add(veth.name, netns=netns, force=True).number == 3
        hook.delete()
        lan.remove(3)
        assert lan.add(other.name, netns=netns, name=veth.name, force=True).number == 3
        lan.remove(3, free=True)
        assert lan.state().ports == ()
        assert lan.state().sets[0].ports == frozenset()


def test_a_removed_port_remembers_which_interface_it_is_kept_for(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        interface = lan.add(veth.name, netns=veth.netns, force=True).interface
        lan.remove(0)
        (kept,) = lan.state().ports
        assert (kept.interface, kept.home) == (None, interface)
        assert lan.add(veth.name, netns=veth.netns, force=True).home is None


def test_where_an_interface_belongs_is_remembered_while_it_is_elsewhere(
    veth: Veth, pin_root: str
) -> None:
    with namespace() as other, PortTable.create("lan", pin_root=pin_root) as lan:
        belongs = lan.add(veth.name, netns=veth.netns, force=True).interface
        moved = move(veth, other)
        lan.follow()
        assert in_map(lan) == {0: (moved.interface.index, 0)}
        assert lan.port(0).home == belongs
        make_again(Veth(veth.name, veth.netns, f"{veth.peer}2", veth.netns))
        lan.follow()
        assert in_map(lan) == {0: (veth.interface.index, 0)}
        assert lan.port(0).home is None


def test_a_full_table_gets_its_interfaces_back_with_other_indexes(
    netns: str, pin_root: str
) -> None:
    veths = make_veth(netns), make_veth(netns)
    with PortTable.create("lan", size=2, pin_root=pin_root) as lan:
        lan.add_all([veth.name for veth in veths], netns=netns, force=True)
        for veth in veths:
            delete(veth)
            make_again(veth)
        lan.follow()
        indexes = {veth.interface.index: number for number, veth in enumerate(veths)}
        assert numbers(lan) == indexes
        assert in_map(lan) == {number: (index, 0) for index, number in indexes.items()}


def test_several_interfaces_are_added_or_none(netns: str, pin_root: str) -> None:
    veths = make_veth(netns), make_veth(netns)
    names = [veth.name for veth in veths]
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(names[0], netns=netns, number=5, force=True)
        lan.remove(5)
        (before,) = lan.state().ports
        for refused in ([*names, "nowhere0"], [*names, names[0]]):
            with pytest.raises(UsageError):
                lan.add_all(refused, netns=netns, prepare="gro")
            assert lan.state().ports == (before,)
            assert in_map(lan) == {}
            assert not any(map(gro_of_peer, veths))
        # This fails only after all were prepared and written down.
        set_link(netns, names[1], mtu=1400)
        with pytest.raises(RequirementUnmet, match="MTU 1400"):
            lan.add_all(names, netns=netns, prepare="gro", policy="strict")
        assert lan.state().ports == (before,)
        assert in_map(lan) == {}
        assert not any(map(gro_of_peer, veths))
        added = lan.add_all(names, netns=netns, prepare="gro")
        assert [port.number for port in added] == [5, 0]
        assert {number: index for number, (index, _) in in_map(lan).items()} == {
            5: veths[0].interface.index,
            0: veths[1].interface.index,
        }
        assert all(map(gro_of_peer, veths))


def test_an_adding_that_fails_says_why_also_if_not_all_can_be_put_back(
    netns: str, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, veth = make_veth(netns), make_veth(netns)
    set_link(netns, veth.name, mtu=1400)

    def undo(*_: object, **__: object) -> None:
        raise HookBusy("undo it", cause="somebody else is at it")

    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(first.name, netns=netns, force=True)
        with monkeypatch.context() as patched:
            patched.setattr("xdpkit.ports.preparing.undo", undo)
            with pytest.raises(RequirementUnmet, match="MTU 1400"):
                lan.add(veth.name, netns=netns, prepare="gro", policy="strict")
        # It is still written down, for the next command.
        assert lan.port(veth.name).interface is None
        assert gro_of_peer(veth)
        lan.follow()
        assert lan.port(veth.name).prepared == ()
        assert not gro_of_peer(veth)


@pytest.mark.parametrize(
    ("prepare", "wish"), [(False, ""), (True, "any"), ("gro", "gro"), ("program", "program")]
)
def test_how_a_port_may_be_prepared_is_written_down_though_nothing_is_lacking(
    veth: Veth, pin_root: str, prepare: Any, wish: str
) -> None:
    with entered(veth.peer_netns), NetlinkSocket() as connection:
        states = offloads_of(connection, veth.peer, *CHECKSUMS, *VLAN_TAGS)
        wanted = {name: False for name, state in states.items() if state.active}
        set_offloads(connection, veth.peer, {**wanted, GRO: True})
    with receiving(veth), PortTable.create("lan", pin_root=pin_root) as lan:
        port = lan.add(veth.name, netns=veth.netns, prepare=prepare)
        assert (port.prepared, port.prepare) == ((), wish)
        lan.remove(0)
        assert lan.state().ports[0].prepare == ""


def test_a_number_is_counted_for_anew_when_it_is_another_ports(netns: str, pin_root: str) -> None:
    first, second = make_veth(netns), make_veth(netns)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        counts = lan.maps["xdpkit_port_counts"]

        def absent() -> int:
            return sum(int.from_bytes(each, sys.byteorder) for each in counts[0])

        lan.add(first.name, netns=netns, force=True)
        lan.remove(0)
        with sending(lan, 0) as sender:
            sender.send(10)
        assert absent() == 10
        lan.add(first.name, netns=netns, force=True)
        assert absent() == 10
        lan.remove(0, free=True)
        lan.add(second.name, netns=netns, force=True)
        assert absent() == 0


def test_a_port_can_be_for_programs_in_generic_mode(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        with pytest.raises(RequirementUnmet):
            lan.add(veth.name, netns=veth.netns)
        assert lan.add(veth.name, netns=veth.netns, mode="generic").prepared == ()


def test_a_set_does_not_take_whom_the_kernel_does_not_take_into_it(
    netns: str, pin_root: str
) -> None:
    plain, other = make_veth(netns), make_veth(netns)
    with receiving(plain, other), PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(plain.name, netns=netns)
        lan.add(other.name, netns=netns, egress=egress())
        lan.set("guests", [0])
        # The first program that uses the set decides: it takes fragments.
        user = _user(lan.maps["xdpkit_set_guests"], ProgFlags.XDP_HAS_FRAGS)
        bpf.prog_load(user, what="use the set").close()
        with pytest.raises(RequirementUnmet, match="all of them take frames in fragments"):
            lan.set("guests", [0, 1])
        assert lan.state().sets == (PortSet("guests", frozenset({0})),)
        assert in_map(lan, "xdpkit_set_guests") == {0: (plain.interface.index, 0)}
        lan.remove(0)
        with pytest.raises(RequirementUnmet, match="takes frames in fragments"):
            lan.add(plain.name, netns=netns, egress=egress())
        assert lan.add(plain.name, netns=netns).number == 0


_TERMS: dict[str, tuple[object, ...]] = {
    "netns": (5, [], "", "a\0b"),
    "number": ("1", 1.5, True, -1, 1 << 70),
    "name": (5, b"x", True, "", "1", "a b", "\udcff"),
    "prepare": (None, "x", 2, 1.5, b"gro", []),
    "policy": ("x", 5, []),
    "mode": (None, "offload", 5),
    "egress": (5, "x"),
}
_NO_INTERFACES: tuple[Any, ...] = (None, b"x", 1.5, True, [], -1, 0, 1 << 70, "", "a\0")
_NO_PORTS: tuple[Any, ...] = (None, b"0", 1.5, True, -1, 1 << 70, [], "", "7")
_NO_SETS: tuple[Any, ...] = (None, 5, b"g", [], "", "1st")
_NO_LISTS: tuple[Any, ...] = (None, 5, "0", b"0", [None], [0.0], [True], [[]])


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("add", [((each,), {}) for each in _NO_INTERFACES]),
        ("add", [(("new",), {name: each}) for name, wrong in _TERMS.items() for each in wrong]),
        ("add_all", [((each,), {}) for each in (None, "new", 5, [None], b"x")]),
        ("rename", [((each, "x"), {}) for each in _NO_PORTS]),
        ("rename", [((0, each), {}) for each in (None, b"x", 5, True, "", "1", "\udcff")]),
        ("remove", [((each,), {}) for each in _NO_PORTS]),
        ("set", [((each, [0]), {}) for each in _NO_SETS]),
        ("set", [(("g", each), {}) for each in _NO_LISTS]),
        ("unset", [((each,), {}) for each in _NO_SETS]),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    netns: str, pin_root: str, command: str, given: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    veth, other = make_veth(netns), make_veth(netns)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=netns, force=True)
        before = lan.state()
        for arguments, options in given:
            meant = [other.name if each == "new" else each for each in arguments]
            if command.startswith("add"):
                options = {"netns": netns, "force": True, **options}
            with pytest.raises(UsageError):
                getattr(lan, command)(*meant, **options)
        assert lan.state() == before


@pytest.mark.parametrize("value", [None, 5, b"lan", True, "", "a/b", "x" * 33])
def test_what_is_no_name_is_no_tables(pin_root: str, value: Any) -> None:
    for make in (PortTable.create, PortTable.open):
        with pytest.raises(UsageError):
            make(value, pin_root=pin_root)
    assert ports.tables(pin_root) == []


@pytest.mark.parametrize("size", [None, "64", True, 1.5, 0, 1025])
def test_what_is_no_size_is_no_tables(pin_root: str, size: Any) -> None:
    with pytest.raises(UsageError):
        PortTable.create("lan", size=size, pin_root=pin_root)
    assert ports.tables(pin_root) == []


@pytest.mark.parametrize("root", [None, 5, []])
def test_what_is_no_path_is_no_bpffs(root: Any) -> None:
    for look in (
        ports.tables,
        lambda root: PortTable.create("lan", pin_root=root),
        lambda root: PortTable.open("lan", pin_root=root),
    ):
        with pytest.raises(UsageError, match="pin_root is a name or a path, not"):
            look(root)


def test_a_port_can_be_renamed_and_its_interface_stays(netns: str, pin_root: str) -> None:
    first, second = make_veth(netns), make_veth(netns)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(first.name, netns=netns, force=True)
        lan.add(second.name, netns=netns, force=True)
        assert lan.rename(first.name, "uplink").number == 0
        assert lan.port("uplink").interface == lan.port(0).interface
        with pytest.raises(UsageError) as caught:
            lan.rename(1, "uplink")
        assert caught.value.cause == "port 0 is called uplink already"
        with pytest.raises(UsageError, match="neither white space nor a slash"):
            lan.rename(1, "up link")
        assert lan.port(1).name == second.name


def test_a_set_has_the_ports_that_it_was_told(netns: str, pin_root: str) -> None:
    first, second = make_veth(netns), make_veth(netns)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        for veth in (first, second):
            lan.add(veth.name, netns=netns, force=True)
        lan.set("guests", [0, second.name])
        assert in_map(lan, "xdpkit_set_guests") == in_map(lan)
        lan.set("guests", ["1"])
        assert in_map(lan, "xdpkit_set_guests") == {1: (second.interface.index, 0)}
        with pytest.raises(UsageError, match="table lan has no port 9"):
            lan.set("guests", [9])
        with pytest.raises(UsageError, match="such a name is 1 to 32"):
            lan.set("1st", [0])
        lan.unset("guests")
        assert lan.state().sets == ()
        with pytest.raises(UsageError, match="table lan has no set guests"):
            lan.unset("guests")


def test_what_programs_use_is_not_taken_from_them(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        spec = source("ports").programs["to_guests"]
        with pytest.raises(UsageError) as caught:
            lan.load(spec)
        assert caught.value.cause == (
            "it sends to the ports of set guests, and the table has no such set"
        )
        assert caught.value.remedy == "make it: xdpkit ports set lan guests PORT..."
        lan.add(veth.name, netns=veth.netns, force=True)
        lan.set("guests", [0])
        with lan.load(spec) as program:
            uses = f"loaded programs use it: program {program.id} (to_guests)"
            with pytest.raises(HookBusy) as busy:
                lan.unset("guests")
            assert busy.value.cause == uses
            with pytest.raises(HookBusy) as busy:
                lan.destroy()
            assert busy.value.cause == uses
            assert in_map(lan) == {0: (veth.interface.index, 0)}
            lan.destroy(force=True)
            assert in_map(lan) == {}
    assert left(pin_root) == {}


def test_an_egress_program_runs_on_what_is_sent(netns: str, pin_root: str) -> None:
    drops, passes = make_veth(netns), make_veth(netns)
    with receiving(drops, passes), PortTable.create("lan", pin_root=pin_root) as lan:
        port = lan.add(drops.name, netns=netns, egress=egress(XdpAction.DROP))
        assert port.egress == "egress"
        with xdpkit.load(egress()) as loaded:
            lan.add(passes.name, netns=netns, egress=loaded)
            assert in_map(lan)[1] == (passes.interface.index, loaded.id)
        with sending(lan, 0) as to_drops, sending(lan, 1) as to_passes:
            to_drops.send()
            to_passes.reach(passes)
        assert received(drops) == 0
        lan.remove(0)
        assert set(in_map(lan)) == {1}
        # Its own programs do not keep it.
        lan.destroy()


def test_an_egress_program_that_would_not_do_is_refused(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        with pytest.raises(UsageError) as caught:
            lan.add(
                veth.name, netns=veth.netns, egress=source("ports").programs["plain"], force=True
            )
        assert caught.value.cause == "plain is no program for what is sent: its section is xdp"
        assert caught.value.remedy == 'SEC("xdp/devmap")'
        with receiving(veth), pytest.raises(RequirementUnmet, match="XDP_TX"):
            lan.add(veth.name, netns=veth.netns, egress=egress(XdpAction.TX))
        lan.set("guests", ())
        with lan.load(source("ports").programs["to_others_in_pieces"]):
            with pytest.raises(RequirementUnmet) as unmet:
                lan.add(veth.name, netns=veth.netns, egress=egress(), force=True)
            assert unmet.value.cause == (
                "egress does not take frames in fragments, and the first program that used table"
                " lan takes frames in fragments: the kernel wants all of them to agree"
            )
            assert unmet.value.remedy == 'SEC("xdp.frags/devmap")'
            with pytest.raises(RequirementUnmet, match="the kernel wants all of them to agree"):
                lan.load(source("ports").programs["to_others"])
        assert lan.state().ports == ()
        assert in_map(lan) == {}


def test_the_table_of_a_process_goes_when_that_has_gone(veth: Veth, pin_root: str) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        lan = PortTable.create("lan", pin_root=pin_root, owned=True)
        lan.add(veth.name, netns=veth.netns, prepare="gro")
        os.write(writing, b"!")
        signal.pause()
        os._exit(1)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    os.close(writing)
    assert ports.sweep(pin_root) == ()
    assert ports.tables(pin_root) == ["lan"]
    assert gro_of_peer(veth)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with PortTable.create("next", pin_root=pin_root):
        assert ports.tables(pin_root) == ["next"]
    assert not gro_of_peer(veth)


def test_a_table_that_was_destroyed_is_of_no_use_any_more(veth: Veth, pin_root: str) -> None:
    with (
        PortTable.create("lan", pin_root=pin_root) as lan,
        PortTable.open("lan", pin_root=pin_root) as other,
    ):
        other.destroy()
        with pytest.raises(UsageError):
            lan.add(veth.name, netns=veth.netns, force=True)
        with pytest.raises(UsageError):
            PortTable.open("lan", pin_root=pin_root)


def test_commands_at_the_same_time_get_different_numbers(pin_root: str) -> None:
    with ExitStack() as resources:
        netns = resources.enter_context(namespace())
        veths = [make_veth(netns, queues=1) for _ in range(6)]
        PortTable.create("lan", pin_root=pin_root).close()
        children = []
        for own in (veths[:3], veths[3:]):
            child = os.fork()
            if not child:
                with PortTable.open("lan", pin_root=pin_root) as lan:
                    for veth in own:
                        lan.add(veth.name, netns=netns, force=True)
                os._exit(0)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        with PortTable.open("lan", pin_root=pin_root) as lan:
            assert [port.number for port in lan.state().ports] == list(range(6))
            by_index = {veth.interface.index for veth in veths}
            assert {index for index, _ in in_map(lan).values()} == by_index
            assert numbers(lan).keys() == by_index
