# SPDX-License-Identifier: Apache-2.0
"""The switch and the router, with hosts in network namespaces that talk by real sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

import xdpkit
from tests.kernel.attaching import program
from tests.kernel.fates import MODES
from tests.kernel.forwarding import (
    ALL,
    FENCE,
    SERVICE,
    Host,
    Network,
    Wire,
    datagram,
    exchange,
    forwarded_by_stack,
    frame,
    lan,
    offloads,
    plug_in,
    received_by_stack,
    subnets,
    transfer,
    unplug,
)
from tests.kernel.killing import DEADLINE, wait_until
from tests.kernel.net import rtnetlink
from tests.kernel.process import COMMAND, shipped
from tests.unit.cli.commands import run
from xdpkit import ports
from xdpkit.examples.forwarding import Setup
from xdpkit.examples.router import Router
from xdpkit.examples.switch import Switch
from xdpkit.hook import AttachedProgram, status

pytestmark = pytest.mark.needs("bpf-link-xdp")
floods = pytest.mark.needs("redirect-broadcast")

MEGABYTES = 4
SOAK_MEGABYTES = 200
# Stations that are silent: hosts say something of themselves now and then.
HERE, THERE, NEIGHBOUR = (bytes((2, 0, 0, 0, 0, number)) for number in (1, 2, 3))
BRIDGE_GROUP = bytes.fromhex("0180c2000000")
PORT = 5002
# include/uapi/linux/in.h, in6.h
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_RECVERR, IP_RECVTTL, IPV6_RECVERR = 10, 2, 11, 12, 25
# struct sock_extended_err of include/uapi/linux/errqueue.h; its origin, ICMP's type and code
ERROR = struct.Struct("=IBBBxII")
TIME_EXCEEDED, HOST_UNREACHABLE, FRAGMENTATION_NEEDED = (2, 11, 0), (2, 3, 1), (2, 3, 4)
TIME_EXCEEDED_V6 = (3, 3, 0)

numbers = itertools.count()


@contextlib.contextmanager
def switched(
    network: Network, pin_root: str, *, mode: str = "native", **more: Any
) -> Iterator[Switch]:
    setup = Setup(
        network.ports, "test", netns=network.netns, mode=mode, prepare=True, pin_root=pin_root
    )
    with Switch(shipped("switch.o"), setup, **more) as switch:
        yield switch


@contextlib.contextmanager
def routed(network: Network, pin_root: str, *, mode: str = "native") -> Iterator[Router]:
    setup = Setup(
        network.ports, "test", netns=network.netns, mode=mode, prepare=True, pin_root=pin_root
    )
    with Router(shipped("router.o"), setup) as router:
        yield router


@contextlib.contextmanager
def command(network: Network, pin_root: str, *options: object) -> Iterator[Rounds]:
    """Run ``xdpkit forward`` between the ports of a network; yield what it says, once it runs."""
    words = ("-n", network.netns, "forward", *options, *network.ports, "--prepare", "-j")
    process = subprocess.Popen(
        [*COMMAND, *map(str, words), "--interval", "0.1", "--pin-root", pin_root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            rounds = Rounds(process)
            rounds.until(lambda _: True)
            yield rounds
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the command prints, round by round."""

    process: subprocess.Popen[bytes]

    def until(self, is_wanted: Callable[[Any], object]) -> Any:
        """Return the first of the following rounds that is wanted."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = json.loads(line)
            if is_wanted(found):
                return found
        assert self.process.stderr is not None
        pytest.fail(self.process.stderr.read().decode())


@contextlib.contextmanager
def wires(*hosts: Host) -> Iterator[list[Wire]]:
    with contextlib.ExitStack() as resources:
        yield [resources.enter_context(host.wire()) for host in hosts]


def fence(sender: Wire, by: bytes, *receivers: Wire) -> list[list[bytes]]:
    """Return the tested frames that each of the receivers has got up to now."""
    text = b"fence %d" % next(numbers)
    sender.send(frame(ALL, by, text, kind=FENCE))
    return [each.received(until=text) for each in receivers]


# The switch


@floods
@pytest.mark.parametrize("mode", MODES)
def test_hosts_at_a_switch_reach_each_other_over_ipv4_and_ipv6(mode: str, pin_root: str) -> None:
    with lan(3) as network, switched(network, pin_root, mode=mode) as switch:
        first, second, third = network.hosts
        for client, server in ((first, second), (second, third), (third, first)):
            exchange(client, server, server.v4)
            exchange(client, server, server.v6)
        transfer(first, third, third.v4, MEGABYTES)
        transfer(second, first, first.v6, MEGABYTES)
        assert switch.stations() == {0: 1, 1: 1, 2: 1}


@floods
@pytest.mark.soak
@pytest.mark.parametrize("count", [3, 8])
def test_hosts_at_a_switch_exchange_much(count: int, pin_root: str) -> None:
    with lan(count) as network, switched(network, pin_root):
        for client in network.hosts:
            for server in network.hosts:
                if client is not server:
                    exchange(client, server, server.v4)
                    exchange(client, server, server.v6)
        transfer(network.hosts[0], network.hosts[-1], network.hosts[-1].v4, SOAK_MEGABYTES)
        transfer(network.hosts[-1], network.hosts[0], network.hosts[0].v6, SOAK_MEGABYTES)


@floods
def test_a_broadcast_is_seen_once_by_each_other_port_and_not_by_its_sender(pin_root: str) -> None:
    with lan(3) as network, switched(network, pin_root), wires(*network.hosts) as (one, two, three):
        sent = [frame(ALL, HERE, b"broadcast %d" % number) for number in range(20)]
        for each in sent:
            one.send(each)
        assert fence(one, HERE, two, three) == [sent, sent]
        # Behind the fence of another host, what came to the sender would have come.
        assert fence(two, THERE, one) == [[]]


@floods
def test_a_frame_goes_to_the_port_of_its_destination_alone_once_that_is_known(
    pin_root: str,
) -> None:
    with lan(3) as network, switched(network, pin_root), wires(*network.hosts) as (one, two, three):
        asking = frame(THERE, HERE, b"where are you?")
        one.send(asking)
        assert fence(one, HERE, two, three) == [[asking], [asking]]
        answer = frame(HERE, THERE, b"here I am")
        two.send(answer)
        assert fence(two, THERE, one, three) == [[answer], []]
        known = frame(THERE, HERE, b"to you alone")
        one.send(known)
        assert fence(one, HERE, two, three) == [[known], []]
        # To a station at the same port: it has heard the frame itself.
        one.send(frame(HERE, NEIGHBOUR, b"as on a hub"))
        assert fence(one, HERE, two, three) == [[], []]
        assert fence(two, THERE, one) == [[]]


@floods
def test_a_station_that_moves_is_found_at_its_new_port_with_its_first_frame(pin_root: str) -> None:
    with lan(3) as network, switched(network, pin_root), wires(*network.hosts) as (one, two, three):
        to = frame(THERE, HERE, b"wherever you are")
        fence(two, THERE, one, three)
        one.send(to)
        assert fence(one, HERE, two, three) == [[to], []]
        fence(three, THERE, one, two)
        one.send(to)
        assert fence(one, HERE, two, three) == [[], [to]]


@floods
def test_a_station_has_a_place_for_each_of_its_vlans(pin_root: str) -> None:
    with lan(3) as network, switched(network, pin_root) as switch:
        with wires(*network.hosts) as (one, two, three):
            two.send(frame(ALL, THERE, b"in 7", vlan=7))
            three.send(frame(ALL, THERE, b"in 8", vlan=8))
            fence(two, network.hosts[1].mac, one, three)
            fence(three, network.hosts[2].mac, one, two)
            for vlan in (7, 8):
                one.send(frame(THERE, HERE, b"to %d" % vlan, vlan=vlan))
            seen = fence(one, HERE, two, three)
            assert [[each[-4:] for each in found] for found in seen] == [[b"to 7"], [b"to 8"]]
        # At each of these ports there is the host itself, too.
        assert (switch.stations()[1], switch.stations()[2]) == (2, 2)


@floods
def test_the_vlans_of_service_tags_are_others_and_a_priority_is_no_vlan(pin_root: str) -> None:
    with lan(3) as network, switched(network, pin_root), wires(*network.hosts) as (one, two, three):
        two.send(frame(ALL, THERE, b"in 7", vlan=7))
        fence(two, network.hosts[1].mac, one, three)
        three.send(frame(ALL, THERE, b"in 7 of the others", vlan=7, tag_kind=SERVICE))
        fence(three, network.hosts[2].mac, one, two)
        one.send(frame(THERE, HERE, b"to 7", vlan=7))
        one.send(frame(THERE, HERE, b"to S7", vlan=7, tag_kind=SERVICE))
        seen = fence(one, network.hosts[0].mac, two, three)
        assert [[each[-4:] for each in found] for found in seen] == [[b"to 7"], [b"o S7"]]
        two.send(frame(ALL, NEIGHBOUR, b"untagged"))
        fence(two, network.hosts[1].mac, one, three)
        one.send(frame(NEIGHBOUR, HERE, b"first", vlan=0))
        seen = fence(one, network.hosts[0].mac, two, three)
        assert [len(found) for found in seen] == [1, 0]


@floods
def test_what_is_between_neighbours_or_has_no_station_as_its_source_is_not_forwarded(
    pin_root: str,
) -> None:
    with lan(2) as network, switched(network, pin_root), wires(*network.hosts) as (one, two):
        one.send(frame(BRIDGE_GROUP, HERE, b"spanning tree"))
        one.send(frame(ALL, b"\3\0\0\0\0\1", b"from a group"))
        one.send(frame(ALL, bytes(6), b"from nobody"))
        assert fence(one, HERE, two) == [[]]


@floods
def test_with_an_ageing_of_0_no_station_is_remembered(pin_root: str) -> None:
    with lan(3) as network, switched(network, pin_root, ageing=0) as switch:
        with wires(*network.hosts) as (one, two, three):
            fence(two, THERE, one, three)
            sent = frame(THERE, HERE, b"to the second")
            one.send(sent)
            assert fence(one, HERE, two, three) == [[sent], [sent]]
        assert switch.stations() == {}


# The router


@pytest.mark.parametrize("mode", MODES)
def test_hosts_of_two_subnets_reach_each_other_through_the_router(mode: str, pin_root: str) -> None:
    with subnets(2) as network, routed(network, pin_root, mode=mode):
        first, second = network.hosts
        # Neither host, nor the router, knows a neighbour yet: the stack asks for them.
        exchange(first, second, second.v4)
        exchange(first, second, second.v6)
        before = forwarded_by_stack(network.netns)
        transfer(first, second, second.v4, MEGABYTES)
        transfer(second, first, first.v6, MEGABYTES)
        assert forwarded_by_stack(network.netns) == before


def test_each_hop_takes_one_off_the_ttl_and_leaves_the_checksum_right(pin_root: str) -> None:
    with subnets(2) as network, routed(network, pin_root):
        first, second = network.hosts
        exchange(first, second, second.v4)
        before = forwarded_by_stack(network.netns)
        with (
            first.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
            second.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving,
        ):
            receiving.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            receiving.bind((second.v4, PORT))
            # The checksum's upper half takes all values. A host drops packets where it is wrong.
            for ttl in range(2, 256):
                sending.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                sending.sendto(b"%d" % ttl, (second.v4, PORT))
                text, ancillary, _, _ = receiving.recvmsg(100, 100)
                ((_, _, left),) = ancillary
                assert (text, *struct.unpack("=i", left)) == (b"%d" % ttl, ttl - 1)
        assert forwarded_by_stack(network.netns) == before


def test_what_cannot_be_forwarded_is_answered_by_the_stack(pin_root: str) -> None:
    with subnets(2) as network, routed(network, pin_root):
        first, second = network.hosts
        # Until the neighbours are known, the stack would have had it anyway.
        exchange(first, second, second.v4)
        exchange(first, second, second.v6)
        with first.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            sending.sendto(b"too far", (second.v4, PORT))
            assert told(sending) == TIME_EXCEEDED
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
            with rtnetlink(network.netns) as connection:
                connection.route("add", dst="10.9.77.0/24", type="unreachable")
                connection.link("set", ifname=second.port, mtu=1280)
            sending.sendto(b"to nobody", ("10.9.77.1", PORT))
            assert told(sending) == HOST_UNREACHABLE
            sending.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            sending.sendto(bytes(1400), (second.v4, PORT))
            assert told(sending) == FRAGMENTATION_NEEDED
        with first.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sending:
            sending.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            sending.sendto(b"too far", (second.v6, PORT))
            assert told(sending) == TIME_EXCEEDED_V6


def told(sending: socket.socket) -> tuple[int, int, int]:
    """Return what ICMP says of a datagram that was sent: which ICMP, its type and code."""
    ready = select.poll()
    ready.register(sending, select.POLLERR)
    assert ready.poll(DEADLINE * 1000)
    _, ancillary, _, _ = sending.recvmsg(2000, 1000, socket.MSG_ERRQUEUE)
    (data,) = (data for _, kind, data in ancillary if kind in (IP_RECVERR, IPV6_RECVERR))
    _, origin, icmp_type, code, _, _ = ERROR.unpack_from(data)
    return origin, icmp_type, code


def test_fragments_are_forwarded_by_the_stack(pin_root: str) -> None:
    with subnets(2) as network, routed(network, pin_root):
        first, second = network.hosts
        before = forwarded_by_stack(network.netns)
        with (
            first.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
            second.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving,
        ):
            receiving.bind((second.v4, PORT))
            long = bytes(range(256)) * 16
            sending.sendto(long, (second.v4, PORT))
            assert receiving.recv(65535) == long
        assert forwarded_by_stack(network.netns)["v4"] - before["v4"] >= 3


def test_what_is_for_another_station_or_a_blackhole_goes_nowhere(pin_root: str) -> None:
    with subnets(2) as network, routed(network, pin_root):
        first, second = network.hosts
        with rtnetlink(network.netns) as connection:
            connection.route("add", dst="10.9.77.0/24", type="blackhole")
        exchange(first, second, second.v4)
        with (
            first.wire() as wire,
            first.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
            second.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving,
        ):
            before = received_by_stack(network.netns)
            sending.sendto(b"into the blackhole", ("10.9.77.1", PORT))
            receiving.bind((second.v4, PORT))
            for to, text in ((THERE, b"not the router's"), (first.gateway, b"its own")):
                wire.send(to + first.mac + b"\x08\0" + datagram(first, second, PORT, text))
            assert receiving.recv(100) == b"its own"
            assert received_by_stack(network.netns) == before


# The command


@floods
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_the_command_shows_what_goes_through_and_puts_everything_back(
    ending: signal.Signals, pin_root: str
) -> None:
    with lan(2) as network:
        before = [offloads(host) for host in network.hosts]
        with command(network, pin_root, "l2") as rounds:
            assert [offloads(host) for host in network.hosts] != before
            first, second = network.hosts
            exchange(first, second, second.v4)
            found = rounds.until(lambda found: all(moves(port) for port in found["table"]["ports"]))
            assert [port["stations"] for port in found["table"]["ports"]] == [1, 1]
            assert [port["interface"] for port in found["table"]["ports"]] == [*network.ports]
            rounds.process.send_signal(ending)
            assert rounds.process.wait(60) == 0
        assert_nothing_is_left(network, pin_root)
        assert [offloads(host) for host in network.hosts] == before


def moves(port: Any) -> bool:
    speed = port["per_second"]
    return bool(speed and speed["received"] and speed["sent"])


@floods
def test_an_interface_that_comes_back_gets_its_port_and_its_program_again(pin_root: str) -> None:
    with lan(3) as network, command(network, pin_root, "l2") as rounds:
        first, second, third = network.hosts
        exchange(first, third, third.v4)
        unplug(network, third)
        rounds.until(lambda found: states(found) == ["up", "up", "absent"])
        exchange(first, second, second.v4)
        plug_in(network, third)
        rounds.until(lambda found: states(found) == ["up", "up", "up"])
        wait_until(lambda: on_hook(network.netns, third.port) is not None)
        # With another address, as it is another interface.
        exchange(first, third, third.v6)
        rounds.process.send_signal(signal.SIGINT)
        assert rounds.process.wait(60) == 0
        assert_nothing_is_left(network, pin_root)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch whose own watcher sees nothing: others are always faster."""
    monkeypatch.setattr(Switch, "_watch", lambda *_: None)


@floods
def test_an_interface_that_another_watcher_has_put_back_gets_its_program(
    pin_root: str, deaf: None
) -> None:
    with (
        lan(2) as network,
        switched(network, pin_root) as switch,
        ports.watch(["test"], pin_root=pin_root) as watch,
    ):
        first, second = network.hosts
        unplug(network, second)
        plug_in(network, second)
        events = iter(watch)
        while next(events).event is not ports.Event.RETURNED:
            pass
        assert on_hook(network.netns, second.port) is None
        switch.refresh()
        assert on_hook(network.netns, second.port) is not None
        exchange(first, second, second.v4)


@floods
def test_a_port_that_somebody_removes_is_told_and_the_others_go_on(
    pin_root: str, deaf: None
) -> None:
    with lan(3) as network, switched(network, pin_root) as switch:
        first, second, third = network.hosts
        switch.news()
        with xdpkit.PortTable.open("test", pin_root=pin_root) as table:
            table.remove(1)
            switch.refresh()
            switch.refresh()
            (told,) = switch.news()
            assert f"port 1 ({second.port}) of test: its interface has been removed" in told
            assert on_hook(network.netns, second.port) is None
            exchange(first, third, third.v4)
            table.add(second.port, netns=network.netns, prepare=True)
            switch.refresh()
            assert switch.news() == []
            exchange(first, second, second.v4)
            table.remove(1)
            switch.refresh()
            table.remove(1, free=True)
            switch.news()
            switch.refresh()
            assert switch.news() == []


@floods
def test_a_port_that_comes_back_with_another_program_is_told_and_the_others_go_on(
    pin_root: str, deaf: None
) -> None:
    with lan(3) as network, switched(network, pin_root) as switch:
        first, second, third = network.hosts
        switch.news()
        unplug(network, second)
        switch.refresh()
        plug_in(network, second)
        with xdpkit.attach(second.port, program(), netns=network.netns, pin_root=pin_root):
            switch.table.follow()
            switch.refresh()
            assert any(second.port in each and "already" in each for each in switch.news())
            exchange(first, third, third.v4)
        switch.refresh()
        exchange(first, second, second.v4)


def states(found: Any) -> list[str]:
    return [port["state"] for port in found["table"]["ports"]]


@floods
def test_killed_it_leaves_no_program_and_the_next_command_removes_the_table(pin_root: str) -> None:
    with lan(2) as network:
        before = [offloads(host) for host in network.hosts]
        with command(network, pin_root, "l2") as rounds:
            rounds.process.kill()
            rounds.process.wait()
        wait_until(lambda: not programs(network))
        assert [offloads(host) for host in network.hosts] != before
        shown = run("ports", "show", "--pin-root", pin_root)
        assert shown.status == 0
        assert "the process that it belonged to has ended" in shown.output
        ports.sweep(pin_root)
        assert_nothing_is_left(network, pin_root)
        assert [offloads(host) for host in network.hosts] == before


@floods
def test_an_interface_with_a_program_is_refused_before_anything_is_changed(pin_root: str) -> None:
    with lan(2) as network:
        before = [offloads(host) for host in network.hosts]
        second = network.ports[1]
        with xdpkit.attach(second, program(), netns=network.netns, pin_root=pin_root) as attached:
            where = ("-n", network.netns, "--pin-root", pin_root)
            done = run("forward", "l2", *network.ports, "--prepare", *where)
            assert done.status == 5
            assert f"program {attached.program.id}" in done.messages
        assert_nothing_is_left(network, pin_root)
        assert [offloads(host) for host in network.hosts] == before


@floods
def test_two_at_once_take_two_tables(pin_root: str) -> None:
    with lan(2) as one, lan(2) as other, switched(one, pin_root):
        setup = Setup(other.ports, "test", netns=other.netns, prepare=True, pin_root=pin_root)
        with pytest.raises(xdpkit.UsageError, match="test"), Switch(shipped("switch.o"), setup):
            pass
        assert programs(other) == []
        with Switch(shipped("switch.o"), replace(setup, table="other")):
            exchange(other.hosts[0], other.hosts[1], other.hosts[1].v4)


def on_hook(netns: str, iface: str) -> AttachedProgram | None:
    (found,) = status(iface=iface, netns=netns)
    return found.attached[0] if found.attached else None


def programs(network: Network) -> list[AttachedProgram]:
    """Return the programs on the ports and on the hosts' interfaces."""
    places = [(network.netns, port) for port in network.ports]
    places += [(host.netns, host.iface) for host in network.hosts]
    return [found for place in places if (found := on_hook(*place)) is not None]


def assert_nothing_is_left(network: Network, pin_root: str) -> None:
    assert programs(network) == []
    assert ports.tables(pin_root=pin_root) == []
