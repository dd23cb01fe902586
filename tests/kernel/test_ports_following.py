# SPDX-License-Identifier: Apache-2.0
"""Interfaces go, come back, move and are renamed, and keep their ports."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from tests.kernel.ports_net import (
    BURST,
    delete,
    egress,
    in_map,
    make_again,
    make_with_indexes,
    move,
    numbers,
    receiving,
    sending,
    set_link,
)
from xdpkit import PortTable, interfaces, ports
from xdpkit.errors import UsageError
from xdpkit.interfaces import namespaces
from xdpkit.interfaces.observation import GRO
from xdpkit.kernel import folder
from xdpkit.ports import Change, Event, Watch, following, peers, watching
from xdpkit.ports.announcing import NOTHING, Announcements, Heard
from xdpkit.ports.planning import NO_PORT
from xdpkit.syscalls import bpf
from xdpkit.syscalls.ethtool import offloads_of, set_offloads
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import cookie, entered, is_foreign, path_of
from xdpkit.tables import store


@contextmanager
def table(pin_root: str, *veths: Veth, size: int = 64) -> Iterator[PortTable]:
    """Yield a table with these interfaces as its ports 0, 1 and so on."""
    with PortTable.create("lan", size=size, pin_root=pin_root) as lan:
        for veth in veths:
            lan.add(veth.name, netns=veth.netns, force=True)
        yield lan


def events(changes: tuple[Change, ...]) -> list[tuple[int | None, Event]]:
    return [(change.number, change.event) for change in changes]


def test_an_interface_that_is_down_stays_where_it_is(veth: Veth, pin_root: str) -> None:
    with table(pin_root, veth) as lan:
        before = in_map(lan)
        set_link(veth.netns, veth.name, state="down")
        assert lan.follow() == ()
        assert in_map(lan) == before
        set_link(veth.netns, veth.name, state="up")
        assert lan.follow() == ()
        with receiving(veth), sending(lan, 0) as sender:
            sender.reach(veth)


def test_a_renamed_interface_keeps_its_port(veth: Veth, pin_root: str) -> None:
    with table(pin_root, veth) as lan:
        before = in_map(lan)
        set_link(veth.netns, veth.name, state="down")
        set_link(veth.netns, veth.name, ifname="wan0")
        (change,) = lan.follow()
        assert change.event is Event.RENAMED
        assert str(change) == f"port 0 ({veth.name}) of lan: {veth.name} is called wan0 now"
        assert in_map(lan) == before
        interface = lan.port(veth.name).interface
        assert interface is not None
        assert interface.name == "wan0"
        assert lan.follow() == ()


def test_an_interface_keeps_its_port_in_another_namespace_and_back(
    netns: str, pin_root: str
) -> None:
    moving, staying = make_veth(netns), make_veth(netns)
    with (
        namespace() as other,
        receiving(moving, staying),
        table(pin_root, moving, staying) as lan,
        sending(lan, 0) as sender,
    ):
        for where in (other, netns):
            moving = move(moving, where)
            assert set(in_map(lan)) == {1}
            (change,) = lan.follow()
            assert change.event is Event.MOVED
            assert str(change) == (
                f"port 0 ({moving.name}) of lan: {moving.name} is in another network namespace now:"
                f" {where}, interface {moving.interface.index}"
            )
            assert lan.follow() == ()
            assert in_map(lan)[0] == (moving.interface.index, 0)
            sender.reach(moving)


def test_no_other_port_loses_a_frame_while_one_goes_and_comes_back(
    netns: str, pin_root: str
) -> None:
    coming, staying = make_veth(netns), make_veth(netns)
    rounds = 4
    with receiving(coming, staying), table(pin_root, coming, staying) as lan:
        is_over = threading.Event()
        failures: list[BaseException] = []
        sent = 0

        def traffic() -> None:
            nonlocal sent
            try:
                with sending(lan, 1) as sender:
                    while not is_over.is_set():
                        sender.reach(staying)
                        sent += BURST
            except BaseException as error:
                failures.append(error)

        sender = threading.Thread(target=traffic)
        sender.start()
        try:
            for _ in range(rounds):
                before = sent
                delete(coming)
                assert events(lan.follow()) == [(0, Event.GONE)]
                make_again(coming)
                assert events(lan.follow()) == [(0, Event.RETURNED)]
                assert in_map(lan)[0] == (coming.interface.index, 0)
                assert numbers(lan)[coming.interface.index] == 0
                wait_until(lambda before=before: sent > before or failures)  # type: ignore[misc]
        finally:
            is_over.set()
            sender.join()
        assert failures == []
        with receiving(coming), sending(lan, 0) as again:
            again.reach(coming)


def test_sets_and_egress_programs_come_back_with_the_interface(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=veth.netns, egress=egress(), force=True)
        lan.set("guests", [0])
        _, program = in_map(lan)[0]
        assert program
        delete(veth)
        lan.follow()
        assert in_map(lan) == in_map(lan, "xdpkit_set_guests") == {}
        make_again(veth)
        lan.follow()
        entry = veth.interface.index, program
        assert in_map(lan) == in_map(lan, "xdpkit_set_guests") == {0: entry}


def test_what_was_prepared_is_prepared_again(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        first = lan.add(veth.name, netns=veth.netns, prepare="gro")
        delete(veth)
        make_again(veth)
        assert events(lan.follow()) == [(0, Event.RETURNED), (0, Event.PREPARED)]
        second = lan.port(0)
        assert [each.what for each in second.prepared] == [each.what for each in first.prepared]
        with entered(veth.netns), NetlinkSocket() as connection:
            assert offloads_of(connection, veth.peer, GRO)[GRO].active
        assert lan.follow() == ()
        assert lan.remove(0) == ()
        with entered(veth.netns), NetlinkSocket() as connection:
            assert not offloads_of(connection, veth.peer, GRO)[GRO].active


def test_what_needed_nothing_at_first_is_prepared_when_it_comes_back(
    veth: Veth, pin_root: str
) -> None:
    bare = {GRO: True, **dict.fromkeys((*peers.CHECKSUMS[:1], *peers.CHECKSUMS[3:]), False)}
    bare |= dict.fromkeys(peers.VLAN_TAGS, False)
    with entered(veth.netns), NetlinkSocket() as connection:
        set_offloads(connection, veth.peer, bare)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        assert lan.add(veth.name, netns=veth.netns, prepare=True).prepared == ()
        delete(veth)
        make_again(veth)
        assert events(lan.follow()) == [(0, Event.RETURNED), (0, Event.PREPARED)]
        assert lan.port(0).prepared
        with sending(lan, 0) as sender:
            sender.reach(veth)


@contextmanager
def foreign_namespace() -> Iterator[str]:
    """Make a network namespace as any user can, with a user namespace of its own."""
    made = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(made, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        if child.stdout.readline() != b"\n":
            pytest.skip("this host lets nobody make user namespaces")
        yield f"/proc/{child.pid}/ns/net"


def test_another_users_namespace_takes_no_port_over(veth: Veth, pin_root: str) -> None:
    with table(pin_root, veth) as lan, foreign_namespace() as foreign:
        mac = veth.interface.mac
        with rtnetlink(foreign) as connection:
            address = ":".join(f"{each:02x}" for each in mac)
            connection.link(
                "add", ifname=veth.name, kind="veth", address=address, peer={"ifname": "p"}
            )
        with entered(foreign):
            assert is_foreign()
            place = cookie()
        delete(veth)
        with store.locked("lan", "follow", pin_root=pin_root) as opened:
            followed = following.follow(opened)
        assert events(followed.changes) == [(0, Event.GONE)]
        assert place not in followed.places
        make_again(veth)
        assert events(lan.follow()) == [(0, Event.RETURNED)]


def test_a_port_that_was_put_into_another_users_namespace_is_followed_there(
    netns: str, pin_root: str
) -> None:
    with foreign_namespace() as foreign:
        veth = make_veth(foreign, netns)
        with table(pin_root, veth) as lan:
            delete(veth)
            assert events(lan.follow()) == [(0, Event.GONE)]
            with rtnetlink(foreign) as connection:
                connection.link("add", ifname=veth.name, kind="veth", peer={"ifname": "p"})
            assert events(lan.follow()) == [(0, Event.RETURNED)]


def test_interfaces_that_change_all_the_time_keep_nobody_from_a_table(
    netns: str, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = NetlinkSocket._exchange

    def interrupted(*args: Any) -> tuple[Any, bool]:
        answers, _ = real(*args)
        return answers, False

    names = {f"d{number}": 100 + number * 3 for number in range(40)}
    make_with_indexes(netns, names)
    monkeypatch.setattr(NetlinkSocket, "_exchange", interrupted)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        for name in names:
            lan.add(name, netns=netns, force=True)
        assert lan.follow() == ()
        set_link(netns, "d7", state="down")
        with namespace() as other:
            move(Veth("d7", netns, "d7p", netns), other)
            assert events(lan.follow()) == [(7, Event.MOVED)]


def test_all_namespaces_are_looked_through_only_for_a_port_that_is_missing(
    netns: str, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, away = make_veth(netns), make_veth(netns)
    searches = 0
    real = namespaces.reachable

    def counted() -> namespaces.Reachable:
        nonlocal searches
        searches += 1
        return real()

    with table(pin_root, here, away), store.locked("lan", "x", pin_root=pin_root) as opened:
        monkeypatch.setattr(namespaces, "reachable", counted)
        following.follow(opened)
        assert searches == 0
        delete(away)
        following.follow(opened, search=lambda port: port.name == here.name)
        assert searches == 0
        following.follow(opened)
        assert searches == 1


def test_a_table_that_is_locked_keeps_nobody_from_another_one(
    pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folder._lock

    def refuse(opened: Fd, path: str, what: str) -> None:
        assert not path.endswith("/wan")
        real(opened, path, what)

    with (
        PortTable.create("lan", pin_root=pin_root) as lan,
        PortTable.create("wan", pin_root=pin_root, owned=True) as wan,
        store.locked("wan", "look at it", pin_root=pin_root),
    ):
        monkeypatch.setattr(folder, "_lock", refuse)
        lan.set("guests", [])
        wan.close()
        # It is an orphan now, and still locked.
        lan.set("guests", [])
        assert store.names(pin_root) == ["lan", "wan"]
    assert ports.sweep(pin_root) == ("wan",)


def test_an_index_that_interfaces_of_two_namespaces_have_stands_for_neither(
    netns: str, pin_root: str
) -> None:
    with namespace() as other, PortTable.create("lan", pin_root=pin_root) as lan:
        make_with_indexes(netns, {"one": 77})
        make_with_indexes(other, {"two": 77})
        lan.add("one", netns=netns, force=True)
        assert numbers(lan) == {77: 0}
        lan.add("two", netns=other, force=True)
        assert numbers(lan) == {77: NO_PORT}
        assert in_map(lan) == {0: (77, 0), 1: (77, 0)}
        assert lan.follow() == ()
        lan.remove("one")
        assert numbers(lan) == {77: 1}


def test_an_interface_that_nobody_can_see_any_more_keeps_its_port_while_it_is_there(
    veth: Veth, pin_root: str
) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan, ExitStack() as kept:
        with namespace() as other:
            descriptor = os.open(path_of(other), os.O_RDONLY)
            kept.callback(os.close, descriptor)
            hidden = move(veth, other)
            lan.add(hidden.name, netns=other, force=True)
            before = in_map(lan), numbers(lan)
        # The namespace has lost its name, and lives on by the descriptor.
        assert lan.follow() == ()
        assert (in_map(lan), numbers(lan)) == before
        kept.close()
        wait_until(lambda: in_map(lan) == {})
        assert events(lan.follow()) == [(0, Event.GONE)]
        assert numbers(lan) == {}


def test_a_following_that_changes_nothing_writes_nothing(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with table(pin_root, veth) as lan:
        lan.set("guests", [0])

        def refuse(*_args: object, **_options: object) -> None:
            raise AssertionError("something was written")

        for name in ("set_entry", "clear_entry", "set_number", "clear_number"):
            monkeypatch.setattr(f"xdpkit.tables.entries.{name}", refuse)
        monkeypatch.setattr(store.Store, "write", refuse)
        assert lan.follow() == ()


@pytest.mark.parametrize(
    "count", [64, pytest.param(1024, marks=pytest.mark.soak)], ids=["64", "1024"]
)
def test_a_table_has_room_for_many_ports_with_any_index(
    netns: str, pin_root: str, count: int
) -> None:
    indexes = {f"d{number}": 1_000 + number * 2_000_003 for number in range(count)}
    make_with_indexes(netns, indexes)
    with PortTable.create("lan", size=count, pin_root=pin_root) as lan:
        for name in indexes:
            lan.add(name, netns=netns, force=True)
        entries = {number: (index, 0) for number, index in enumerate(indexes.values())}
        assert in_map(lan) == entries
        assert numbers(lan) == {index: number for number, (index, _) in entries.items()}
        lan.set("all", range(count))
        assert in_map(lan, "xdpkit_set_all") == entries
        assert lan.follow() == ()


# Watching


class Watching:
    """A watch that runs in a thread of its own."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.told: list[Change] = []
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.told.extend(iter(self._watch))
        except BaseException as error:
            self._failures.append(error)

    def expect(self, event: Event) -> None:
        """Wait until it tells of an event."""
        wait_until(
            lambda: event in [change.event for change in self.told] or self._failures,
            lambda: f"told: {[str(change) for change in self.told]}",
        )
        self.told.clear()
        assert self._failures == []

    def stop(self) -> None:
        self._watch.stop()
        self._thread.join()
        self._watch.close()
        assert self._failures == []


@contextmanager
def watched(*names: str, pin_root: str) -> Iterator[Watching]:
    """Watch tables, all if none is named, in a thread."""
    running = Watching(ports.watch(names or None, pin_root=pin_root))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only what is announced be looked at, after the first look."""
    monkeypatch.setattr(watching, "_PERIOD", 3600.0)


@pytest.mark.usefixtures("patient")
def test_a_watch_puts_back_what_comes_back(veth: Veth, pin_root: str) -> None:
    with table(pin_root, veth) as lan:
        delete(veth)
        with watched("lan", pin_root=pin_root) as running:
            running.expect(Event.GONE)
            make_again(veth)
            running.expect(Event.RETURNED)
            assert in_map(lan) == {0: (veth.interface.index, 0)}
            delete(veth)
            running.expect(Event.GONE)
            assert numbers(lan) == {}
            make_again(veth)
            running.expect(Event.RETURNED)


def test_a_watch_finds_what_comes_back_in_a_new_namespace(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PERIOD", 0.05)
    with table(pin_root, veth) as lan, watched(pin_root=pin_root) as running:
        with namespace() as other:
            moved = move(veth, other)
            running.expect(Event.MOVED)
            assert in_map(lan) == {0: (moved.interface.index, 0)}
            # It goes with its namespace, which the watch does not keep.
        running.expect(Event.GONE)
        assert in_map(lan) == {}


@pytest.mark.usefixtures("patient")
def test_a_watch_that_lost_what_was_announced_looks_at_everything(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = NetlinkSocket.notifications

    def lost(socket: NetlinkSocket) -> None:
        real(socket)

    with table(pin_root, veth), watched(pin_root=pin_root) as running:
        monkeypatch.setattr(NetlinkSocket, "notifications", lost)
        delete(veth)
        running.expect(Event.GONE)


def test_a_watch_sees_tables_that_come_later(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PERIOD", 0.05)
    with watched(pin_root=pin_root) as running, table(pin_root, veth) as lan:
        delete(veth)
        running.expect(Event.GONE)
        lan.destroy()


@pytest.mark.usefixtures("patient")
def test_a_watch_looks_at_nothing_while_nothing_is_announced(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    real, heard = following.follow, Announcements.heard

    def counted(*args: object, **options: object) -> object:
        nonlocal looks
        looks += 1
        return real(*args, **options)  # type: ignore[arg-type]

    def heard_of_others(announcements: Announcements) -> Heard:
        heard(announcements)
        return NOTHING

    monkeypatch.setattr("xdpkit.ports.watching.follow", counted)
    monkeypatch.setattr(Announcements, "heard", heard_of_others)
    with table(pin_root, veth), ports.watch(pin_root=pin_root) as watch:
        assert watch.wait(timeout=0) is None
        first = looks
        assert first
        assert watch.wait(timeout=0.2) is None
        assert looks == first


def test_a_watch_of_a_table_that_is_not_there_is_refused(pin_root: str) -> None:
    with pytest.raises(UsageError, match="port table lan"):
        ports.watch(["lan"], pin_root=pin_root)


@pytest.mark.usefixtures("patient")
def test_a_watch_prepares_again_what_somebody_has_switched_off(veth: Veth, pin_root: str) -> None:
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=veth.netns, prepare="gro")
        with ports.watch(["lan"], pin_root=pin_root) as watch:
            assert watch.wait(timeout=0) is None
            with entered(veth.netns), NetlinkSocket() as connection:
                set_offloads(connection, veth.peer, {GRO: False})
            change = watch.wait()
            assert change is not None
            assert change.event is Event.PREPARED
        with entered(veth.netns), NetlinkSocket() as connection:
            assert offloads_of(connection, veth.peer, GRO)[GRO].active


def test_a_watch_tells_once_that_a_table_cannot_be_followed(
    veth: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PERIOD", 0.0)
    with PortTable.create("lan", pin_root=pin_root) as lan:
        lan.add(veth.name, netns=veth.netns, egress=egress(), force=True)
        os.unlink(f"{pin_root}/xdpkit/ports/lan/egress-0")
        path = f"{pin_root}/xdpkit/ports/lan/egress-0"
        bpf.obj_pin(lan.maps["xdpkit_port_counts"].fileno(), path, what="pin something else")
        with ports.watch(["lan"], pin_root=pin_root) as watch:
            change = watch.wait()
            assert change is not None
            assert (change.event, change.port) == (Event.REFUSED, None)
            assert change.text == "port table lan cannot be followed: it is a map, not a program"
            assert watch.wait(timeout=0.2) is None
        os.unlink(path)
        with ports.watch(["lan"], pin_root=pin_root) as watch:
            lan.destroy()
            # That there is none any more is no trouble.
            assert watch.wait(timeout=0.1) is None


@pytest.mark.parametrize("names", ["lan", b"lan", 5, [None], [["lan"]]])
def test_what_is_no_list_of_names_is_refused(names: Any, pin_root: str) -> None:
    with pytest.raises(UsageError, match=r"watch port tables: .*name"):
        ports.watch(names, pin_root=pin_root)


@pytest.mark.parametrize("timeout", [math.nan, "1"])
def test_what_is_no_time_is_refused(timeout: Any, pin_root: str) -> None:
    with (
        ports.watch(pin_root=pin_root) as watch,
        pytest.raises(UsageError, match="is no number of seconds"),
    ):
        watch.wait(timeout)


def test_a_watch_of_a_process_with_many_descriptors_works(veth: Veth, pin_root: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 1100
    with ExitStack() as resources:
        resources.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * count), before[1]))
        for _ in range(count):
            resources.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        with ports.watch(pin_root=pin_root) as watch:
            assert watch.wait(timeout=0) is None
        with interfaces.watch(veth.name, netns=veth.netns) as findings:
            assert findings.wait(timeout=0) is None


def test_a_stopped_watch_ends_at_once(pin_root: str) -> None:
    with ports.watch(pin_root=pin_root) as watch:
        watch.stop()
        assert list(watch) == []
        assert watch.wait() is None
