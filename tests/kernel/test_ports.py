# SPDX-License-Identifier: Apache-2.0
"""Port tables: what commands do, and what they refuse."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

import xdpkit
from tests.kernel.net import Veth, make_veth, namespace
from tests.kernel.ports_net import (
    egress,
    in_map,
    left,
    move,
    numbers,
    received,
    receiving,
    sending,
    source,
)
from xdpkit import Hook, PortTable, ports
from xdpkit.errors import HookBusy, RequirementUnmet, UsageError
from xdpkit.interfaces.observation import GRO
from xdpkit.syscalls.ethtool import offloads_of
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import XdpAction


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
        with pytest.raises(RequirementUnmet, match="neither a native program nor GRO") as caught:
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


def test_a_number_that_a_program_has_in_its_instructions_is_not_freed(
    veth: Veth, pin_root: str
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=veth.netns, number=3, force=True)
        lan.set("guests", [3])
        hook.add(source("ports").programs["port"], force=True).close()
        with pytest.raises(HookBusy) as caught:
            lan.remove(3, free=True)
        assert caught.value.cause == (
            f"a program on {veth.name} was attached as that of port 3, and has the number in its"
            " instructions"
        )
        assert in_map(lan) == {3: (veth.interface.index, 0)}
        hook.delete()
        lan.remove(3, free=True)
        assert lan.state().ports == ()
        assert lan.state().sets[0].ports == frozenset()


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
