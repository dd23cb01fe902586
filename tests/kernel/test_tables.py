# SPDX-License-Identifier: Apache-2.0
"""Port tables as they are kept in the kernel: created, changed, found and destroyed."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.kernel.attaching import raw_program
from tests.kernel.fates import returning
from tests.kernel.killing import Killing, killing
from tests.kernel.net import Veth, make_veth, rtnetlink
from tests.unit.tables.sample import changed
from xdpkit.errors import (
    HookBusy,
    KernelRefused,
    MissingPrivilege,
    RequirementUnmet,
    UsageError,
)
from xdpkit.interfaces import Interface, XdpIds, resolve
from xdpkit.kernel import Map, Program
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.tables import entries, maps, record, store, wire
from xdpkit.tables.frags import frags_of
from xdpkit.tables.model import Identity, Port, PortSet, Table
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType, XdpAction

__all__ = ["killing"]

NOBODY = 65534
COOKIE = 4711
ETH0 = Identity("eth0", 3, COOKIE, None, b"\2\0\0\0\0\1", "")
PORT = Port(2, "uplink", ETH0)
TABLE = Table("lan", 64, (PORT,))
INTERFACE = Interface(3, "eth0", None, COOKIE, None, None, 1500, 1, 1, XdpIds())


def write(opened: store.Store, table: Table) -> None:
    with store.locked(opened, "change the table"):
        opened.write(table)


@pytest.fixture
def lan(pin_root: str) -> Iterator[store.Store]:
    """A table with one port, open."""
    with store.create("lan", pin_root=pin_root) as opened:
        write(opened, TABLE)
        yield opened


def below(root: str) -> dict[str, int]:
    """Return what is in the folder of all pins, with the modes."""
    found = sorted(Path(root).rglob("*"))
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in found}


def egress_program(*, frags: bool = False) -> Program:
    """Load a program for the entries of devmaps; it lets all pass."""
    return load(returning(XdpAction.PASS), AttachType.XDP_DEVMAP, frags=frags)


def load(code: bytes, attach_type: AttachType, *, frags: bool) -> Program:
    flags = ProgFlags.XDP_HAS_FRAGS if frags else ProgFlags(0)
    new = NewProgram(
        type=ProgType.XDP,
        code=code,
        license="GPL",
        name="of_the_test",
        attach_type=attach_type,
        flags=flags,
    )
    return Program(bpf.prog_load(new, what="load a program"))


# A table's life


def test_a_table_is_created_empty_and_goes_without_a_trace(pin_root: str) -> None:
    with store.create("lan", size=8, pin_root=pin_root) as created:
        table = created.read()
        assert replace(table, xdpkit="") == Table("lan", 8)
        assert below(pin_root) == {
            "xdpkit": 0o700,
            "xdpkit/ports": 0o700,
            "xdpkit/ports/lan": 0o700,
            "xdpkit/ports/lan/counts": 0o600,
            "xdpkit/ports/lan/numbers": 0o600,
            "xdpkit/ports/lan/ports": 0o600,
            "xdpkit/ports/lan/record": 0o600,
        }
        shapes = {
            name: (each.type, each.key_size, each.value_size, each.max_entries)
            for name, each in created.maps().items()
        }
        assert shapes == {
            "xdpkit_ports": (MapType.DEVMAP, 4, 8, 8),
            "xdpkit_port_numbers": (MapType.HASH, 4, 4, 8),
            "xdpkit_port_counts": (MapType.PERCPU_ARRAY, 4, 8, 8),
        }
        with store.open("lan", pin_root=pin_root) as opened:
            assert opened.read() == table
            assert opened.ports.id == created.ports.id
        assert store.names(pin_root) == ["lan"]
    store.destroy("lan", pin_root=pin_root)
    assert store.names(pin_root) == []
    assert below(pin_root) == {}


def test_a_table_is_opened_again_as_it_was_written(lan: store.Store) -> None:
    later = replace(
        TABLE,
        ports=(PORT, Port(63, "spare", None, egress="retag")),
        sets=(PortSet("guests", frozenset({2, 63})), PortSet("z-9", frozenset())),
    )
    write(lan, later)
    with store.open("lan", pin_root=lan.pin_root) as opened:
        assert replace(opened.read(), xdpkit="") == later
        assert list(opened.sets) == ["guests", "z-9"]
        assert opened.maps().keys() == lan.maps().keys()
        assert opened.maps()["xdpkit_set_guests"].id == lan.sets["guests"].id
        assert opened.sets["guests"].max_entries == opened.size == 64


def test_a_table_of_1024_ports_is_written_and_read(pin_root: str) -> None:
    ports = tuple(
        Port(number, f"port-{number}", replace(ETH0, name=f"eth{number}", ifindex=number + 1))
        for number in range(1024)
    )
    table = Table("lan", 1024, ports, (PortSet("all", frozenset(range(1024))),))
    with store.create("lan", size=1024, pin_root=pin_root) as opened:
        write(opened, table)
        assert replace(opened.read(), xdpkit="") == table
    last = replace(INTERFACE, index=1024, name="eth1023")
    assert store.find(last, pin_root=pin_root) == (store.Membership("lan", 1023, "port-1023"),)


def test_a_second_table_of_the_name_is_refused_and_changes_nothing(lan: store.Store) -> None:
    before = below(lan.pin_root)
    with pytest.raises(UsageError) as caught:
        store.create("lan", pin_root=lan.pin_root)
    assert str(caught.value) == "create port table lan: there is a port table lan already"
    assert below(lan.pin_root) == before
    assert lan.read().ports == TABLE.ports


def test_what_cannot_be_a_table_is_refused_before_anything_is_made(pin_root: str) -> None:
    for name in ("", "../x", "a.b", "a\x1b"):
        with pytest.raises(UsageError, match="such a name is 1 to 32 of") as caught:
            store.create(name, pin_root=pin_root)
        assert caught.value.what.isprintable()
        with pytest.raises(UsageError, match="such a name is 1 to 32 of"):
            store.open(name, pin_root=pin_root)
        with pytest.raises(UsageError, match="such a name is 1 to 32 of"):
            store.destroy(name, pin_root=pin_root)
    with pytest.raises(UsageError, match="a table has room for 1 to 1024 ports, not 1025"):
        store.create("lan", size=1025, pin_root=pin_root)
    assert below(pin_root) == {}


def test_a_table_that_is_not_there_is_told(pin_root: str) -> None:
    for use in (store.open, store.destroy):
        with pytest.raises(UsageError, match=r"port table lan: there is no port table lan\n"):
            use("lan", pin_root=pin_root)
    with (
        pytest.raises(UsageError, match=r"look: there is no port table lan\n"),
        store.locked("lan", "look", pin_root=pin_root),
    ):
        pass
    with pytest.raises(
        UsageError, match=r"look for the port of eth0: there is no port table lan\n"
    ):
        store.find(INTERFACE, pin_root=pin_root, table="lan")


def test_a_table_that_was_destroyed_is_not_changed_under_the_name_of_another(
    lan: store.Store,
) -> None:
    store.destroy("lan", pin_root=lan.pin_root)
    with pytest.raises(UsageError, match=r"read port table lan: there is no port table lan\n"):
        lan.read()
    with store.create("lan", pin_root=lan.pin_root) as another:
        with pytest.raises(UsageError, match="was destroyed, and created anew, meanwhile"):
            write(lan, TABLE)
        with pytest.raises(UsageError, match="was destroyed, and created anew, meanwhile"):
            lan.destroy()
        assert another.read().ports == ()


def test_a_table_keeps_its_name_and_size_and_stays_owned(lan: store.Store) -> None:
    for other in (replace(TABLE, name="wan"), replace(TABLE, size=65)):
        with pytest.raises(UsageError, match="its name and its size stay as they are"):
            write(lan, other)
    write(lan, replace(TABLE, owner=True))
    assert lan.is_orphan()
    with pytest.raises(UsageError, match="and so does that it is owned"):
        write(lan, TABLE)


def test_what_a_later_version_wrote_is_shown_and_not_changed(lan: store.Store) -> None:
    later = changed(replace(TABLE, xdpkit="9.9.9"), tail=b"\1")
    record.write(lan.folder, later, "write")

    table = lan.read()
    assert table == replace(TABLE, xdpkit="9.9.9", unknown=True)
    assert store.find(INTERFACE, pin_root=lan.pin_root)
    with pytest.raises(RequirementUnmet) as caught:
        write(lan, TABLE)
    assert str(caught.value) == (
        "change port table lan: xdpkit 9.9.9 wrote it, with what this version does not know\n"
        "Remedy: use xdpkit 9.9.9"
    )
    assert lan.read() == table


# Sets and egress programs


def test_sets_come_and_go_with_the_record(lan: store.Store, veth: Veth) -> None:
    write(lan, replace(TABLE, sets=(PortSet("guests", frozenset({2})),)))
    guests = lan.sets["guests"]
    entries.set_entry(lan, guests, 2, veth.interface.index, veth.netns)
    with Map.from_pin(f"{lan.folder}/set-guests") as in_a_program:
        assert entries.entries(in_a_program) == {2: (veth.interface.index, 0)}
        write(lan, TABLE)
        # Whoever has it still sends nowhere.
        assert entries.entries(in_a_program) == {}
    assert lan.sets == {}
    assert not os.path.lexists(f"{lan.folder}/set-guests")
    with pytest.raises(UsageError, match="closed"):
        guests.fileno()


def test_a_reader_follows_the_sets_that_others_change(lan: store.Store) -> None:
    some = replace(TABLE, sets=(PortSet("guests", frozenset()),))
    with store.open("lan", pin_root=lan.pin_root) as reader:
        write(lan, some)
        assert reader.sets == {}
        reader.read()
        first = reader.sets["guests"]
        reader.read()
        assert reader.sets["guests"] is first
        write(lan, TABLE)
        write(lan, some)
        reader.read()
        assert reader.sets["guests"].id == lan.sets["guests"].id


def test_an_egress_program_is_kept_as_long_as_its_port_has_one(lan: store.Store) -> None:
    with egress_program() as first, egress_program() as second:
        with store.locked(lan, "set it"):
            lan.pin_egress(2, first)
            lan.write(replace(TABLE, ports=(replace(PORT, egress="retag"),)))
            lan.pin_egress(2, second)
            lan.pin_egress(3, second)
        with lan.egress(2) or contextlib.nullcontext() as kept:
            assert kept is not None
            assert kept.id == second.id
        write(lan, TABLE)
    assert lan.egress(2) is None
    assert lan.egress(3) is None
    assert not [name for name in os.listdir(lan.folder) if name.startswith("egress")]


def test_what_is_pinned_for_an_egress_program_and_is_none_is_told(lan: store.Store) -> None:
    lan.ports.pin(f"{lan.folder}/egress-2")
    with pytest.raises(UsageError, match="it is a map, not a program"):
        lan.egress(2)


# What is in the maps


def test_a_port_sends_out_of_an_interface_of_the_namespace_that_is_named(
    lan: store.Store, veth: Veth
) -> None:
    index = veth.interface.index
    entries.set_entry(lan, lan.ports, 2, index, veth.netns)
    with egress_program() as program:
        entries.set_entry(lan, lan.ports, 63, index, veth.netns, program)
        assert entries.entries(lan.ports) == {2: (index, 0), 63: (index, program.id)}
    entries.clear_entry(lan.ports, 2)
    entries.clear_entry(lan.ports, 3)
    assert entries.entries(lan.ports).keys() == {63}
    entries.clear(lan.ports)
    assert entries.entries(lan.ports) == {}


def test_numbers_are_looked_up_by_index(lan: store.Store) -> None:
    entries.set_number(lan.numbers, 1 << 30, 5)
    entries.set_number(lan.numbers, 7, 0xFFFFFFFF)
    assert entries.port_numbers(lan.numbers) == {1 << 30: 5, 7: 0xFFFFFFFF}
    assert entries.clear_number(lan.numbers, 7)
    assert not entries.clear_number(lan.numbers, 7)
    assert entries.port_numbers(lan.numbers) == {1 << 30: 5}


def test_an_interface_that_is_not_there_is_told(lan: store.Store, veth: Veth) -> None:
    with pytest.raises(KernelRefused) as caught:
        entries.set_entry(lan, lan.ports, 2, 99999, veth.netns)
    assert str(caught.value) == (
        "have port 2 of table lan send out of interface 99999: the caller's network namespace,"
        " where a devmap looks, has no interface 99999 (EINVAL)"
    )
    with pytest.raises(UsageError, match="it has ports from 0 to 63"):
        entries.set_entry(lan, lan.ports, 64, veth.interface.index, veth.netns)
    assert entries.entries(lan.ports) == {}


def test_an_interface_that_goes_takes_its_entry_along(lan: store.Store, netns: str) -> None:
    one, other = make_veth(netns), make_veth(netns)
    for number, each in enumerate((one, other)):
        entries.set_entry(lan, lan.ports, number, each.interface.index, netns)
    index = other.interface.index
    with rtnetlink(netns) as connection:
        connection.link("set", ifname=other.name, state="down")
        connection.link("del", index=one.interface.index)
    assert entries.entries(lan.ports) == {1: (index, 0)}


# Frames in fragments


@pytest.mark.needs("xdp-frags")
@pytest.mark.parametrize("frags", [False, True])
def test_the_first_program_decides_for_all_that_use_the_ports(
    lan: store.Store, veth: Veth, frags: bool
) -> None:
    index = veth.interface.index
    assert frags_of(lan.ports) is None
    entries.set_entry(lan, lan.ports, 1, index, veth.netns)
    assert frags_of(lan.ports) is None, "neither the question nor a plain entry decides"

    with egress_program(frags=frags) as first:
        entries.set_entry(lan, lan.ports, 2, index, veth.netns, first)
    assert frags_of(lan.ports) is frags
    with egress_program(frags=not frags) as other, pytest.raises(RequirementUnmet) as caught:
        entries.set_entry(lan, lan.ports, 3, index, veth.netns, other)
    assert caught.value.cause.endswith(
        "decided that all of them take frames in fragments (SEC xdp.frags/devmap)"
        if frags
        else "decided that all of them take no frames in fragments (SEC xdp/devmap)"
    )
    assert entries.entries(lan.ports).keys() == {1, 2}
    entries.clear(lan.ports)
    assert frags_of(lan.ports) is frags, "it is decided for good"


@pytest.mark.needs("xdp-frags")
@pytest.mark.parametrize("frags", [False, True])
def test_a_program_that_uses_the_ports_decides_as_well(lan: store.Store, frags: bool) -> None:
    from xdpkit.isa import asm
    from xdpkit.isa.opcodes import Register
    from xdpkit.probes.ask import machine_code
    from xdpkit.uapi.bpf import PseudoSrc

    code = machine_code(
        asm.ld_imm64(Register.R1, lan.ports.fileno(), source=PseudoSrc.MAP_FD),
        asm.mov(Register.R0, XdpAction.PASS),
        asm.exit(),
    )
    load(code, AttachType.XDP, frags=frags).close()
    assert frags_of(lan.ports) is frags
    with pytest.raises(KernelRefused):
        load(code, AttachType.XDP, frags=not frags)


def test_a_program_that_is_no_egress_program_is_told_so(lan: store.Store, veth: Veth) -> None:
    with raw_program("ordinary") as ordinary, pytest.raises(RequirementUnmet) as caught:
        entries.set_entry(lan, lan.ports, 2, veth.interface.index, veth.netns, ordinary)
    assert caught.value.cause == "an egress program is one for devmaps (SEC xdp/devmap)"


# Which port an interface is


def test_an_interface_is_found_by_where_it_is(lan: store.Store) -> None:
    root = lan.pin_root
    assert store.find(INTERFACE, pin_root=root) == (store.Membership("lan", 2, "uplink"),)
    for other in (replace(INTERFACE, index=4, name="eth1"), replace(INTERFACE, netns_cookie=1)):
        assert store.find(other, pin_root=root) == ()
        assert store.find(other, pin_root=root, table="lan") == ()
    with store.create("wan", pin_root=root) as wan:
        write(wan, replace(TABLE, name="wan", ports=(replace(PORT, number=0),)))
    assert [each.table for each in store.find(INTERFACE, pin_root=root)] == ["lan", "wan"]
    assert store.find(INTERFACE, pin_root=root, table="wan") == (
        store.Membership("wan", 0, "uplink"),
    )


def test_an_interface_is_not_taken_for_one_that_had_its_index(lan: store.Store) -> None:
    gone = Port(1, "old", replace(ETH0, name="gone0"))
    write(lan, replace(TABLE, ports=(gone, PORT)))
    assert store.find(INTERFACE, pin_root=lan.pin_root) == (store.Membership("lan", 2, "uplink"),)
    stranger = replace(INTERFACE, name="eth9", mac=b"\2\0\0\0\0\2")
    assert store.find(stranger, pin_root=lan.pin_root) == ()
    renamed = replace(INTERFACE, name="eth9", mac=ETH0.mac)
    assert {each.number for each in store.find(renamed, pin_root=lan.pin_root)} == {1, 2}


def test_addresses_of_zeros_tell_no_interface_from_another(lan: store.Store) -> None:
    write(lan, replace(TABLE, ports=(replace(PORT, interface=replace(ETH0, mac=bytes(6))),)))
    stranger = replace(INTERFACE, name="eth9", mac=bytes(6))
    assert store.find(stranger, pin_root=lan.pin_root) == ()


def test_an_interface_that_was_made_anew_is_the_port_once_that_is_followed(
    lan: store.Store, veth: Veth
) -> None:
    seen = veth.interface
    known = Identity(seen.name, seen.index + 1000, seen.netns_cookie, veth.netns, b"\2", "veth")
    write(lan, replace(TABLE, ports=(replace(PORT, interface=known),)))
    for table in (None, "lan"):
        assert store.find(seen, pin_root=lan.pin_root, table=table) == (
            store.Membership("lan", 2, "uplink", is_followed=False),
        )
    # The name is not enough where two ports had it,
    write(lan, replace(TABLE, ports=(Port(1, "other", known), replace(PORT, interface=known))))
    assert store.find(seen, pin_root=lan.pin_root) == ()
    # or where the port's interface is still there, and was renamed.
    peer = resolve(veth.peer, netns=veth.peer_netns)
    renamed = replace(known, ifindex=peer.index, mac=peer.mac, netns_cookie=peer.netns_cookie)
    write(lan, replace(TABLE, ports=(replace(PORT, interface=renamed),)))
    assert store.find(replace(seen, netns=veth.peer_netns), pin_root=lan.pin_root) == ()


def test_a_table_is_told_from_one_that_had_its_name(lan: store.Store) -> None:
    root = lan.pin_root
    assert store.incarnations(root) == {"lan": lan.incarnation}
    store.destroy("lan", pin_root=root)
    assert store.incarnations(root) == {}
    with store.create("lan", pin_root=root) as other:
        assert store.incarnations(root) == {"lan": other.incarnation}
        assert other.incarnation != lan.incarnation


def test_a_table_that_did_not_change_is_decoded_and_its_sets_are_opened_once(
    lan: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lan, replace(TABLE, sets=(PortSet("guests", frozenset()),)))
    decode, open_pinned = Mock(wraps=wire.decode), Mock(wraps=maps.open_pinned)
    monkeypatch.setattr(record, "decode", decode)
    monkeypatch.setattr(maps, "open_pinned", open_pinned)
    first = lan.read()
    assert lan.read() is first
    store.find(INTERFACE, pin_root=lan.pin_root)
    assert (decode.call_count, open_pinned.call_count) == (1, 1)
    write(lan, replace(TABLE, sets=(PortSet("guests", frozenset({2})),)))
    assert lan.read().sets == (PortSet("guests", frozenset({2})),)
    assert decode.call_count == 2


def test_where_there_is_no_table_nothing_is_found_and_nothing_made(pin_root: str) -> None:
    assert store.find(INTERFACE, pin_root=pin_root) == ()
    assert store.find(INTERFACE, pin_root=f"{pin_root}/nowhere") == ()
    assert store.find(INTERFACE, pin_root="/dev/null") == ()
    assert below(pin_root) == {}


def as_nobody(task: Callable[[], object]) -> None:
    """Do a task in a child without any privilege; fail with what it raises."""
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            task()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_privilege_it_is_said_that_only_root_may_look(lan: store.Store) -> None:
    root = lan.pin_root
    os.chmod(root, 0o755)

    def look() -> None:
        for use in (
            lambda: store.find(INTERFACE, pin_root=root),
            lambda: store.names(root),
            lambda: store.open("lan", pin_root=root),
            lambda: store.create("lan2", pin_root=root),
            lambda: store.destroy("lan", pin_root=root),
        ):
            with pytest.raises(MissingPrivilege):
                use()

    as_nobody(look)
    assert lan.read().ports == TABLE.ports


def test_without_privilege_and_without_tables_nothing_is_found(pin_root: str) -> None:
    os.chmod(pin_root, 0o755)

    def look() -> None:
        assert store.find(INTERFACE, pin_root=pin_root) == ()
        assert store.names(pin_root) == []

    as_nobody(look)


# Whose it is


def test_an_owned_table_is_left_behind_when_its_owner_closes_it(pin_root: str) -> None:
    with store.create("lan", pin_root=pin_root, owned=True) as owned:
        write(owned, replace(TABLE, owner=True))
        assert not owned.is_orphan()
        with store.open("lan", pin_root=pin_root) as opened:
            assert not opened.is_orphan()
        assert store.find(INTERFACE, pin_root=pin_root)
    assert store.names(pin_root) == ["lan"]
    with store.open("lan", pin_root=pin_root) as opened:
        assert opened.is_orphan()
    assert store.find(INTERFACE, pin_root=pin_root) == ()
    assert store.find(INTERFACE, pin_root=pin_root, table="lan")
    store.destroy("lan", pin_root=pin_root)
    assert below(pin_root) == {}


def test_an_owned_table_is_left_behind_by_a_process_that_dies(
    pin_root: str, killing: Killing
) -> None:
    reading, writing = os.pipe()
    with killing.reporting("by the owner"):

        def own() -> None:
            with store.create("lan", pin_root=pin_root, owned=True):
                os.close(writing)
                os.read(go_on, 1)

        go_on, end = os.pipe()
        child = killing.fork(own)
        os.close(writing)
        os.read(reading, 1)
        with store.open("lan", pin_root=pin_root) as opened:
            assert not opened.is_orphan()
            os.kill(child, 9)
            os.waitpid(child, 0)
            assert opened.is_orphan()
    for descriptor in (reading, go_on, end):
        os.close(descriptor)
    store.destroy("lan", pin_root=pin_root)


def test_a_process_that_is_forked_off_is_not_the_owner(pin_root: str) -> None:
    with store.create("lan", pin_root=pin_root, owned=True) as owned:
        child = os.fork()
        if not child:
            owned.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert not owned.is_orphan()
    store.destroy("lan", pin_root=pin_root)


# What others have put there


def test_a_root_that_is_no_bpffs_holds_no_table(tmp_path: Path) -> None:
    with pytest.raises(RequirementUnmet) as caught:
        store.create("lan", pin_root=str(tmp_path))
    assert caught.value.cause == (
        f"{tmp_path} is not a BPF file system, and only one can hold pins"
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("which", ["xdpkit", "xdpkit/ports/lan"])
@pytest.mark.parametrize("harm", ["mode", "owner"])
def test_a_folder_that_is_not_ours_alone_is_not_trusted(
    lan: store.Store, which: str, harm: str
) -> None:
    path = f"{lan.pin_root}/{which}"
    if harm == "mode":
        os.chmod(path, 0o755)
        why = "others may use it (mode 0755, not 0700)"
    else:
        os.chown(path, NOBODY, NOBODY)
        why = f"user {NOBODY} owns it"
    for use in (
        lambda: store.open("lan", pin_root=lan.pin_root),
        lambda: store.create("lan", pin_root=lan.pin_root),
        lambda: store.destroy("lan", pin_root=lan.pin_root),
        lambda: store.names(lan.pin_root),
        lambda: store.find(INTERFACE, pin_root=lan.pin_root),
    ):
        with pytest.raises(RequirementUnmet) as caught:
            use()
        assert caught.value.cause == f"{path} was not made by xdpkit: {why}"
        assert caught.value.remedy is not None
        assert caught.value.remedy.endswith(f"rm -r {path}")


def test_a_link_in_the_place_of_a_table_is_not_followed(lan: store.Store) -> None:
    os.symlink(lan.folder, f"{os.path.dirname(lan.folder)}/wan")
    with pytest.raises(RequirementUnmet, match="was not made by xdpkit: it is not a folder"):
        store.open("wan", pin_root=lan.pin_root)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is pinned where it does not belong, and what is said of it."""

    pin: str
    what: str
    said: str


DAMAGES = (
    Damage("record", "devmap", "it is another map than a table would be kept in"),
    Damage("record", "array", "it does not begin as a port table does"),
    Damage("record", "program", "it is no map"),
    Damage("ports", "nothing", "nothing is pinned as ports"),
    Damage("ports", "array", "what is pinned as ports is none of its maps: it is another map"),
    Damage("ports", "devmap", "what is pinned as ports is none of its maps: it is another map"),
    Damage("counts", "program", "what is pinned as counts is none of its maps: it is no map"),
    Damage("set-guests", "nothing", "nothing is pinned as set-guests"),
    Damage("set-guests", "array", "what is pinned as set-guests is none of its maps"),
)


def put_there(path: str, what: str) -> None:
    os.unlink(path)
    if what == "program":
        with raw_program("foreign") as loaded:
            bpf.obj_pin(loaded.fileno(), path, what="pin it")
    elif what != "nothing":
        kind = MapType.DEVMAP if what == "devmap" else MapType.ARRAY
        with Map.create(kind, key_size=4, value_size=8, max_entries=2) as foreign:
            foreign.pin(path)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: f"{damage.pin}-{damage.what}")
def test_a_damaged_table_is_told_and_can_be_destroyed(pin_root: str, damage: Damage) -> None:
    with store.create("lan", pin_root=pin_root) as opened:
        write(opened, replace(TABLE, sets=(PortSet("guests", frozenset()),)))
    folder = f"{pin_root}/xdpkit/ports/lan"
    put_there(f"{folder}/{damage.pin}", damage.what)

    with pytest.raises(RequirementUnmet) as caught:
        store.open("lan", pin_root=pin_root)
    assert caught.value.cause.startswith(
        f"what is kept of port table lan in {folder} is damaged: {damage.said}"
    )
    assert caught.value.remedy == "remove it, and create it anew: xdpkit ports destroy lan"
    assert store.names(pin_root) == ["lan"]
    store.destroy("lan", pin_root=pin_root)
    assert below(pin_root) == {}


def test_a_folder_in_the_place_of_a_record_is_told(lan: store.Store) -> None:
    os.unlink(f"{lan.folder}/record")
    os.mkdir(f"{lan.folder}/record")
    with pytest.raises(RequirementUnmet, match="is damaged: it is no BPF object"):
        lan.read()
    with pytest.raises(UsageError, match="there is a port table lan already"):
        store.create("lan", pin_root=lan.pin_root)
    store.destroy("lan", pin_root=lan.pin_root)
    assert below(lan.pin_root) == {}


def test_another_tables_record_is_none(lan: store.Store) -> None:
    record.write(lan.folder, wire.encode(replace(TABLE, name="wan")), "write")
    with pytest.raises(RequirementUnmet, match="damaged: its record is that of table wan"):
        store.find(INTERFACE, pin_root=lan.pin_root)


def test_a_lock_that_is_held_too_long_is_told(
    lan: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdpkit.kernel.folder._PATIENCE", 0.0)
    with store.locked("lan", "hold it", pin_root=lan.pin_root) as held:
        assert held.read().ports == TABLE.ports
        with pytest.raises(HookBusy) as caught:
            store.destroy("lan", pin_root=lan.pin_root)
    assert caught.value.remedy == f"see which: fuser -v {lan.folder}"
    store.destroy("lan", pin_root=lan.pin_root)


# Several at a time


def test_of_two_that_create_a_table_one_wins_and_the_other_is_told(
    pin_root: str, killing: Killing
) -> None:
    def race() -> None:
        os.read(start, 1)
        try:
            store.create("lan", pin_root=pin_root).close()
        except UsageError as error:
            killing.say(error.cause)
        else:
            killing.say("created")

    for _ in range(5):
        start, go = os.pipe()
        with killing.reporting("in a race") as said:
            children = [killing.fork(race) for _ in range(2)]
            os.write(go, b"12")
            os.close(go)
            for child in children:
                os.waitpid(child, 0)
        os.close(start)
        assert sorted(said) == ["created", "there is a port table lan already"]
        store.destroy("lan", pin_root=pin_root)
        assert below(pin_root) == {}


def test_who_waits_for_a_table_that_is_destroyed_finds_none(
    pin_root: str, killing: Killing
) -> None:
    store.create("lan", pin_root=pin_root).close()

    def change() -> None:
        try:
            with store.locked("lan", "change it", pin_root=pin_root):
                killing.say("locked")
        except UsageError as error:
            killing.say(str(error))

    with killing.reporting("while waiting") as said:
        with store.locked("lan", "destroy it", pin_root=pin_root) as opened:
            child = killing.fork(change)
            opened.destroy()
        os.waitpid(child, 0)
    assert said[0] == "change it: there is no port table lan"


def test_a_reader_without_the_lock_meets_only_tables_that_were_written(
    pin_root: str, killing: Killing
) -> None:
    with_set = replace(TABLE, sets=(PortSet("guests", frozenset({2})),))
    without = replace(TABLE, ports=())
    with store.create("lan", pin_root=pin_root) as opened:
        write(opened, without)

        def change() -> None:
            with store.open("lan", pin_root=pin_root) as mine:
                for _ in range(100):
                    write(mine, with_set)
                    write(mine, without)

        with killing.reporting("by the writer"):
            child = killing.fork(change)
            met = []
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                met.append(replace(opened.read(), xdpkit=""))
                assert set(opened.sets) == {each.name for each in met[-1].sets}
        assert set(met) <= {with_set, without}
        assert met
    store.destroy("lan", pin_root=pin_root)


# kill -9

thoroughly = pytest.mark.parametrize(
    "every",
    [
        pytest.param(False, id="lasting"),
        pytest.param(True, id="every-step", marks=pytest.mark.soak),
    ],
)

SMALL = replace(TABLE, size=4)
FULL = replace(
    SMALL,
    ports=(replace(PORT, egress="retag"),),
    sets=(PortSet("guests", frozenset({2})), PortSet("staff", frozenset())),
)
OTHER = replace(SMALL, sets=(PortSet("staff", frozenset()), PortSet("third", frozenset())))
PLAIN = {"record", "ports", "numbers", "counts"}
OF_FULL = PLAIN | {"set-guests", "set-staff", "egress-2"}


def fill(root: str, table: Table) -> None:
    with store.open("lan", pin_root=root) as opened, egress_program() as program:
        owner = opened.read().owner
        with store.locked(opened, "change it"):
            if table is FULL:
                opened.pin_egress(2, program)
            opened.write(replace(table, owner=owner))


def present(root: str) -> Table | None:
    """Return the table that is there; what is left of none goes."""
    names = store.names(root)
    if not names:
        assert not os.path.lexists(f"{root}/xdpkit/ports/lan")
        return None
    with store.open("lan", pin_root=root) as opened:
        return replace(opened.read(), xdpkit="")


def finish(root: str) -> None:
    """Go on with whatever there is: change it, find it tidy, and destroy it."""
    if present(root) is None:
        create(root)
    fill(root, FULL)
    assert set(os.listdir(f"{root}/xdpkit/ports/lan")) - {"owner"} == OF_FULL
    store.destroy("lan", pin_root=root)
    assert below(root) == {}


def deaths(
    killing: Killing,
    root: str,
    prepare: Callable[[], object],
    change: Callable[[], object],
    every: bool,
) -> Iterator[Table | None]:
    """Let a child die before each step of a change; yield what there is afterwards."""
    for step in itertools.count(1):
        prepare()
        died_before = killing.die(change, step, every=every)
        yield present(root)
        finish(root)
        if died_before is None:
            break
    assert killing.deaths > 3


def create(root: str, table: Table | None = None, *, owned: bool = False) -> None:
    store.create("lan", size=4, pin_root=root, owned=owned).close()
    if table is not None:
        fill(root, table)


@thoroughly
@pytest.mark.parametrize("owned", [False, True], ids=["", "owned"])
def test_a_creation_that_is_killed_leaves_a_table_or_none(
    pin_root: str, killing: Killing, owned: bool, every: bool
) -> None:
    def change() -> None:
        create(pin_root, owned=owned)

    for found in deaths(killing, pin_root, lambda: None, change, every):
        assert found in (None, Table("lan", 4, owner=owned))


@thoroughly
def test_a_change_that_is_killed_leaves_the_old_table_or_the_new_one(
    pin_root: str, killing: Killing, every: bool
) -> None:
    def prepare() -> None:
        create(pin_root, FULL)

    for found in deaths(killing, pin_root, prepare, lambda: fill(pin_root, OTHER), every):
        assert found in (FULL, OTHER)


@thoroughly
def test_a_destruction_that_is_killed_leaves_the_table_or_none(
    pin_root: str, killing: Killing, every: bool
) -> None:
    def prepare() -> None:
        create(pin_root, FULL)

    def change() -> None:
        store.destroy("lan", pin_root=pin_root)

    for found in deaths(killing, pin_root, prepare, change, every):
        assert found in (FULL, None)


@thoroughly
def test_a_creation_that_is_killed_is_swept_by_the_next_look(
    pin_root: str, killing: Killing, every: bool
) -> None:
    """Whichever that is: a list, an attempt to open it, or another creation."""

    def listed() -> None:
        assert store.names(pin_root) == []

    def opened() -> None:
        with pytest.raises(UsageError, match="there is no port table lan"):
            store.open("lan", pin_root=pin_root)

    looks: Iterator[Callable[[], None]]
    looks = itertools.cycle((listed, opened, lambda: create(pin_root)))
    for step in itertools.count(1):
        died_before = killing.die(lambda: create(pin_root), step, every=every)
        if not record.is_there(f"{pin_root}/xdpkit/ports/lan"):
            next(looks)()
        if store.names(pin_root):
            store.destroy("lan", pin_root=pin_root)
        assert not os.path.lexists(f"{pin_root}/xdpkit/ports/lan")
        if died_before is None:
            break
    assert killing.deaths > 3
