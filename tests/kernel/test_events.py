# SPDX-License-Identifier: Apache-2.0
"""Events: each packet that goes wrong is told once, under the right names, or counted."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel import compiled
from tests.kernel.compiled import assembled
from tests.kernel.fates import (
    SIZE,
    attached,
    frame,
    load,
    redirecting,
    redirecting_by,
    returning,
    set_gro,
)
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from tests.kernel.process import COMMAND
from tests.kernel.troubles import ABORTED, added, one, program, send
from xdpkit import Hook
from xdpkit.errors import HookBusy, KernelRefused, UsageError
from xdpkit.interfaces import resolve
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import CpumapValue, DevmapValue, Map, Program
from xdpkit.monitor import events
from xdpkit.monitor.events import EventReader, Suppressed
from xdpkit.monitor.layout import INDEX_ALL
from xdpkit.monitor.model import Reason
from xdpkit.monitor.record import HEAD, Kind
from xdpkit.monitor.report import Report
from xdpkit.monitor.tracepoints import present, target_is_readable
from xdpkit.monitor.watched import Watched
from xdpkit.probes.ask import machine_code
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, MapType, PseudoSrc, XdpAction

__all__ = ["one"]

pytestmark = pytest.mark.needs("ringbuf")

# Only ends a run that has failed anyway.
_LONG = 10.0

NO_SUCH_INTERFACE = 9999

BROADCAST = 1 << 3
"""BPF_F_BROADCAST."""


def read(reader: EventReader, count: int) -> list[Report]:
    """Return so many reports, and those that came with them."""
    end = time.monotonic() + _LONG
    found: list[Report] = []
    while len(found) < count and time.monotonic() < end:
        found += [each for each in reader.read(0.5) if isinstance(each, Report)]
    return found


def rest(reader: EventReader) -> list[Report]:
    """Watch no longer; return what was not read yet."""
    reader.stop()
    return [each for each in reader.read(0) if isinstance(each, Report)]


def told(veth: Veth, code: bytes, *, transmit: bool = False, mode: str = "native") -> Report:
    """Send a frame to a program; return what is told of it, which has to be one event."""
    with attached(code, veth.name, veth.netns, mode):
        with EventReader(netns=veth.netns, transmit=transmit) as reader:
            send(veth)
            (found,) = [*read(reader, 1), *rest(reader)]
            assert (reader.seen, reader.suppressed, reader.lost) == (1, 0, 0)
        assert found.where is not None
        assert (found.where.interface, found.where.netns) == (veth.name, "")
        return found


@pytest.mark.parametrize("returned", [0, 5, 42, 0xFFFF_FFFF])
def test_what_is_no_action_is_told_once_as_it_was_returned(one: Veth, returned: int) -> None:
    report = told(one, returning(returned - (1 << 32) if returned >> 31 else returned))
    assert report.event.kind is Kind.EXCEPTION
    assert report.event.action == returned
    assert report.reason is (Reason.INVALID if returned else Reason.ABORTED)
    assert report.program == "trial"
    assert report.event.queue is None
    assert abs(report.time - time.time_ns()) < 60_000_000_000


def _no_such_interface(_: Veth) -> int:
    return NO_SUCH_INTERFACE


def _that_does_not_transmit(veth: Veth) -> int:
    return resolve("lo", netns=veth.netns).index


def _that_is_down(veth: Veth) -> int:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, state="down")
    return veth.interface.index


def _with_a_small_mtu(veth: Veth) -> int:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, mtu=68)
    return veth.interface.index


REDIRECTS = {
    "EINVAL": _no_such_interface,
    "EOPNOTSUPP": _that_does_not_transmit,
    "ENETDOWN": _that_is_down,
    "EMSGSIZE": _with_a_small_mtu,
}


@pytest.mark.parametrize("error", REDIRECTS)
def test_a_failed_redirect_is_told_once_with_target_and_errno(one: Veth, error: str) -> None:
    target = make_veth(one.netns, queues=1)
    # It transmits what is redirected as long as its peer has a program.
    with attached(ABORTED, target.peer, target.netns):
        index = REDIRECTS[error](target)
        report = told(one, redirecting(index))
    assert report.event.kind is Kind.REDIRECT_ERROR
    assert report.event.error_name == error
    assert report.target is not None
    assert (report.target.kind, report.target.ifindex) == ("interface", index)
    assert report.reason is None


def test_a_redirect_by_a_devmap_names_map_key_and_interface(one: Veth) -> None:
    lo = resolve("lo", netns=one.netns).index
    with Map.create(MapType.DEVMAP, key_size=4, value_size=8, max_entries=1) as devmap:
        with entered(one.netns):
            devmap[0] = DevmapValue(lo)
        report = told(one, redirecting_by(devmap.fileno()))
        assert report.target is not None
        assert report.target.to_dict() == {
            "kind": "devmap",
            "name": "lo",
            "ifindex": lo,
            "map_id": devmap.id,
            "index": 0,
        }
    assert report.event.error_name == "EOPNOTSUPP"


def test_a_target_in_another_namespace_is_named_with_that(one: Veth) -> None:
    with (
        namespace() as elsewhere,
        Map.create(MapType.DEVMAP, key_size=4, value_size=8, max_entries=1) as devmap,
    ):
        # In the packet's namespace, this index is another one's.
        with entered(elsewhere):
            devmap[0] = DevmapValue(resolve("lo").index)
        report = told(one, redirecting_by(devmap.fileno()))
        assert report.target is not None
        assert report.target.name == f"{elsewhere}/lo"


def test_a_redirect_to_all_entries_of_a_devmap_names_none_of_them(one: Veth) -> None:
    if not target_is_readable():
        pytest.skip("needs a kernel that lets the target of a redirect be read")
    targets = make_veth(one.netns, queues=1), make_veth(one.netns, queues=1)
    # The key that the program names has no entry: else the kernel tells that one.
    with Map.create(MapType.DEVMAP, key_size=4, value_size=8, max_entries=3) as devmap:
        for key, target in enumerate(targets, start=1):
            with entered(one.netns):
                devmap[key] = DevmapValue(target.interface.index)
            _with_a_small_mtu(target)
        report = told(one, redirecting_by(devmap.fileno(), BROADCAST), mode="generic")
        assert report.target is not None
        assert (report.target.kind, report.target.ifindex) == ("devmap", 0)
        assert report.target.map_id == devmap.id
        assert report.target.name == "all entries"
    assert report.event.map_index == INDEX_ALL
    assert report.event.error_name == "EMSGSIZE"


def test_of_a_program_of_a_devmap_an_action_is_unsupported_that_devmaps_do_not_have(
    one: Veth,
) -> None:
    target = make_veth(one.netns, queues=1)
    ending = compiled.returning(XdpAction.TX, attach_type=AttachType.XDP_DEVMAP)
    with (
        ending,
        attached(ABORTED, target.peer, target.netns),
        Map.create(MapType.DEVMAP, key_size=4, value_size=8, max_entries=1) as devmap,
    ):
        with entered(one.netns):
            devmap[0] = DevmapValue(target.interface.index, ending)
        with (
            attached(redirecting_by(devmap.fileno()), one.name, one.netns),
            EventReader(netns=one.netns) as reader,
        ):
            send(one)
            (report,) = [*read(reader, 1), *rest(reader)]
    assert report.event.kind is Kind.EXCEPTION
    assert (report.event.program, report.event.in_map) == (ending.id, True)
    assert (report.event.action, report.reason) == (XdpAction.TX, Reason.UNSUPPORTED)
    assert report.where is not None
    assert report.where.interface == target.name


def test_a_redirect_to_nowhere_is_told(one: Veth) -> None:
    report = told(one, returning(XdpAction.REDIRECT))
    assert report.event.kind is Kind.REDIRECT_ERROR
    assert report.event.errno
    assert report.target is not None
    assert (report.target.kind, report.target.ifindex) == ("", 0)


@pytest.mark.parametrize("action", [XdpAction.DROP, XdpAction.PASS])
def test_nothing_is_told_of_what_goes_well(one: Veth, action: XdpAction) -> None:
    with (
        attached(returning(action), one.name, one.netns),
        EventReader(netns=one.netns, transmit=True) as reader,
    ):
        send(one, 5)
        assert rest(reader) == []
        assert reader.seen == 0


def test_frames_that_a_veth_cannot_send_back_are_told_on_request(one: Veth) -> None:
    # Its peer has neither a program nor GRO, so there is nothing that would receive them.
    report = told(one, returning(XdpAction.TX), transmit=True)
    assert report.event.kind is Kind.BULK_TX
    assert (report.event.sent, report.event.drops) == (0, 1)
    assert report.event.error_name == "ENXIO"


def test_frames_that_a_target_does_not_take_are_told_on_request(one: Veth) -> None:
    target = make_veth(one.netns, queues=1)
    with attached(ABORTED, target.peer, target.netns):
        with rtnetlink(target.netns) as connection:
            connection.link("set", ifname=target.peer, mtu=68)
        report = told(one, redirecting(target.interface.index), transmit=True)
    assert report.event.kind is Kind.DEVMAP_XMIT
    assert (report.event.sent, report.event.drops) == (0, 1)
    assert report.target is not None
    assert report.target.name == target.name


def test_a_target_that_does_not_take_frames_is_named_with_its_namespace(one: Veth) -> None:
    with (
        namespace() as elsewhere,
        Map.create(MapType.DEVMAP, key_size=4, value_size=8, max_entries=1) as devmap,
    ):
        target = make_veth(elsewhere, queues=1)
        with entered(elsewhere):
            devmap[0] = DevmapValue(target.interface.index)
        with attached(ABORTED, target.peer, elsewhere):
            with rtnetlink(elsewhere) as connection:
                connection.link("set", ifname=target.peer, mtu=68)
            report = told(one, redirecting_by(devmap.fileno()), transmit=True)
        assert report.event.kind is Kind.DEVMAP_XMIT
        assert report.target is not None
        assert report.target.name == f"{elsewhere}/{target.name}"


def _cpumap(cpu: int) -> Map:
    """Make a cpumap whose only queue has room for one frame."""
    cpumap = Map.create(MapType.CPUMAP, key_size=4, value_size=4, max_entries=cpu + 1, name="cpus")
    cpumap[cpu] = CpumapValue(1) if cpumap.value_size == 8 else 1
    return cpumap


def _to_cpu(cpumap: Map, cpu: int) -> tuple[Instruction, ...]:
    return (
        asm.ld_imm64(Register.R1, cpumap.fileno(), source=PseudoSrc.MAP_FD),
        asm.mov(Register.R2, cpu),
        asm.mov(Register.R3, 0),
        asm.call("redirect_map"),
        asm.exit(),
    )


@pytest.mark.needs("live-frames")
def test_frames_for_which_a_cpumap_has_no_room_are_told_on_request() -> None:
    cpu = max(os.sched_getaffinity(0))
    with _cpumap(cpu) as cpumap:
        code = _to_cpu(cpumap, cpu)
        with assembled(*code) as program, EventReader(transmit=True) as reader:
            program.run(frame(), repeat=256, live=True, batch_size=256)
            reports = [
                each
                for each in [*read(reader, 1), *rest(reader)]
                if each.event.kind is Kind.CPUMAP_ENQUEUE and each.event.map_id == cpumap.id
            ]
    assert reports
    for report in reports:
        # It goes in bulks of 8 frames (CPU_MAP_BULK_SIZE in kernel/bpf/cpumap.c).
        assert report.event.drops > 0
        assert report.event.sent + report.event.drops <= 8
        assert report.target is not None
        assert report.target.name == f"cpu {cpu}"


@pytest.mark.needs("live-frames")
def test_a_frame_for_which_a_cpumap_has_no_room_is_told_once_in_generic_mode(one: Veth) -> None:
    # With GRO, a veth takes live frames without a native program.
    set_gro(one.netns, one.name, on=True)
    cpu = max(os.sched_getaffinity(0))
    sending = compiled.assembled(
        asm.mov(Register.R1, resolve(one.peer, netns=one.netns).index),
        asm.mov(Register.R2, 0),
        asm.call("redirect"),
        asm.exit(),
    )
    with (
        _cpumap(cpu) as cpumap,
        attached(machine_code(*_to_cpu(cpumap, cpu)), one.name, one.netns, "generic"),
        sending,
        EventReader(transmit=True) as reader,
    ):
        with entered(one.netns):
            sending.run(frame(), live=True, repeat=32, cpu=cpu)
        reports = [
            each for each in [*read(reader, 1), *rest(reader)] if each.event.map_id == cpumap.id
        ]
    assert reports
    assert {(each.event.kind, each.event.error_name) for each in reports} == {
        (Kind.REDIRECT_ERROR, "ENOSPC")
    }


def test_a_refused_attachment_is_told_in_the_kernels_words(one: Veth) -> None:
    if not present("bpf_xdp_link_attach_failed"):
        pytest.skip("needs bpf_xdp_link_attach_failed, which came with Linux 6.6")
    with EventReader() as reader, load(ABORTED) as program, entered(one.netns):
        index = one.interface.index
        with (
            bpf.link_create(program.fileno(), index, AttachType.XDP),
            pytest.raises(KernelRefused, match="EBUSY"),
        ):
            bpf.link_create(program.fileno(), index, AttachType.XDP)
        reports = [*read(reader, 1), *rest(reader)]
    assert "Can't replace active BPF XDP link" in {each.why.cause for each in reports}


# Filters


def test_only_interfaces_that_were_named_are_told_of(one: Veth) -> None:
    other = make_veth(one.netns, queues=1)
    with contextlib.ExitStack() as during:
        for veth in (one, other):
            during.enter_context(attached(ABORTED, veth.name, veth.netns))
        reader = during.enter_context(
            EventReader(netns=one.netns, interfaces=[one.name], frames=False)
        )
        send(other)
        send(one)
        found = [*read(reader, 1), *rest(reader)]
        assert reader.seen == 1
    assert [each.where.interface for each in found if each.where] == [one.name]


def test_only_one_namespace_is_told_of(one: Veth) -> None:
    with namespace() as elsewhere, contextlib.ExitStack() as during:
        other = make_veth(elsewhere, queues=1)
        for veth in (one, other):
            during.enter_context(attached(ABORTED, veth.name, veth.netns))
        here = during.enter_context(EventReader(netns=one.netns))
        everywhere = during.enter_context(EventReader())
        send(other)
        send(one)
        assert [each.event.ifindex for each in [*read(here, 1), *rest(here)]] == [
            one.interface.index
        ]
        assert here.seen == 1
        # Others may abort packets meanwhile.
        expected = {f"{other.netns}/{other.name}", f"{one.netns}/{one.name}"}
        missing = set(expected)
        end = time.monotonic() + _LONG
        while missing and time.monotonic() < end:
            missing -= {each.where.title for each in read(everywhere, 1) if each.where}
    assert not missing


def test_only_actions_that_were_named_are_told_of(one: Veth) -> None:
    with EventReader(netns=one.netns, actions=["invalid"]) as reader:
        for code in (ABORTED, returning(XdpAction.REDIRECT), returning(42)):
            with attached(code, one.name, one.netns):
                send(one)
        assert [each.event.action for each in [*read(reader, 1), *rest(reader)]] == [42]
        assert reader.seen == 1


@pytest.mark.parametrize("by", ["id", "name"])
def test_only_programs_that_were_named_are_told_of(one: Veth, by: str) -> None:
    other = make_veth(one.netns, queues=1)
    with program(ABORTED, "wanted") as wanted, program(ABORTED, "unwanted") as unwanted:
        chosen: int | str = wanted.id if by == "id" else "wanted"
        with (
            _linked(wanted, one),
            _linked(unwanted, other),
            EventReader(netns=one.netns, programs=[chosen]) as reader,
        ):
            send(other)
            send(one)
            assert [each.program for each in [*read(reader, 1), *rest(reader)]] == ["wanted"]
            assert reader.seen == 1


def test_tracepoints_that_have_nothing_to_tell_are_left_alone(one: Veth) -> None:
    cpumaps = {"xdp_cpumap_enqueue", "xdp_cpumap_kthread"}
    with EventReader(transmit=True) as reader:
        assert cpumaps <= set(reader.tracepoints)
    limits: tuple[dict[str, Any], ...] = (
        {"netns": one.netns},
        {"programs": ["any"]},
        {"actions": ["tx"]},
    )
    for options in limits:
        with EventReader(transmit=True, **options) as reader:
            assert cpumaps.isdisjoint({*reader.tracepoints, *reader.absent})
            assert "bpf_xdp_link_attach_failed" not in reader.tracepoints


# Bounds


def test_without_credit_it_is_only_counted(one: Veth) -> None:
    with attached(ABORTED, one.name, one.netns), EventReader(netns=one.netns, rate=3) as reader:
        send(one, 10)
        wait_until(lambda: reader.seen >= 10)
        assert (reader.seen, reader.suppressed, reader.lost) == (10, 7, 0)
        assert len(rest(reader)) == 3


@pytest.mark.usefixtures("looking_often")
def test_a_reader_that_stands_still_is_sent_no_more_than_it_granted(one: Veth) -> None:
    with attached(ABORTED, one.name, one.netns), EventReader(netns=one.netns, rate=5) as reader:
        for _ in range(3):
            send(one, 20)
        wait_until(lambda: reader.seen >= 60)
        assert reader.suppressed == 55
        assert len(read(reader, 5)) == 5
        # As soon as it reads again, it is told again; and how much it has missed.
        reports: list[Report | Suppressed] = []
        end = time.monotonic() + _LONG
        while time.monotonic() < end and not {Suppressed, Report} <= set(map(type, reports)):
            send(one)
            reports += reader.read(0.2)
    assert {Suppressed, Report} <= set(map(type, reports))


def test_a_full_buffer_loses_an_exact_number(one: Veth) -> None:
    size = 4096
    room = (size - 1) // (8 + HEAD.size)
    with (
        attached(ABORTED, one.name, one.netns),
        EventReader(netns=one.netns, rate=1000, buffer_size=size) as reader,
    ):
        send(one, room + 30)
        wait_until(lambda: reader.seen >= room + 30)
        assert (reader.seen, reader.suppressed, reader.lost) == (room + 30, 0, 30)
        assert len(rest(reader)) == room


def test_two_readers_do_not_take_each_others_events(one: Veth) -> None:
    with (
        attached(ABORTED, one.name, one.netns),
        EventReader(netns=one.netns) as first,
        EventReader(netns=one.netns) as second,
    ):
        send(one, 4)
        for reader in (first, second):
            assert len(read(reader, 4)) == 4
            assert (reader.seen, reader.suppressed, reader.lost) == (4, 0, 0)


def test_a_closed_reader_says_so(one: Veth) -> None:
    with attached(ABORTED, one.name, one.netns), EventReader(netns=one.netns) as reader:
        send(one, 2)
        reading = iter(reader)
        next(reading)
        reader.close()
        for use in (lambda: next(reading), lambda: next(iter(reader)), lambda: reader.seen):
            with pytest.raises(UsageError, match="it is closed"):
                use()


def test_of_a_killed_reader_nothing_is_left(one: Veth) -> None:
    watching = subprocess.Popen(
        [*COMMAND, "events", "-n", one.netns], stderr=subprocess.PIPE, text=True
    )
    with watching:
        assert watching.stderr is not None
        assert "watching all interfaces" in watching.stderr.readline()
        ids = _programs_of(watching.pid)
        assert ids
        watching.kill()
    # The kernel lets go of a program a little later than of the process.
    wait_until(lambda: not any(map(_is_loaded, ids)))


def _programs_of(pid: int) -> set[int]:
    """Return the ids of the programs that a process has descriptors of."""
    folder = f"/proc/{pid}/fdinfo"
    found = set()
    for number in os.listdir(folder):
        with open(f"{folder}/{number}", encoding="ascii") as file:
            found |= {int(match) for match in re.findall(r"^prog_id:\s*(\d+)", file.read(), re.M)}
    return found


def _is_loaded(number: int) -> bool:
    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
    if descriptor is not None:
        descriptor.close()
    return descriptor is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rate": 0}, "the rate has to be a whole number from 1 to 1,000,000, not 0"),
        ({"rate": 1.5}, "the rate has to be a whole number from 1 to 1,000,000, not 1.5"),
        ({"snaplen": -1}, "bytes of a packet has to be a whole number from 0 to 4,096, not -1"),
        ({"snaplen": 4097}, "bytes of a packet has to be a whole number from 0 to 4,096, not 4097"),
        ({"buffer_size": "x"}, "the size is a power of 2"),
        ({"actions": ["nonsense"]}, "actions are aborted, drop, pass, tx, redirect, invalid"),
        ({"actions": []}, "actions are aborted"),
        ({"buffer_size": 5000}, "the size is a power of 2"),
        ({"interfaces": ["nosuch0"]}, "has no such interface"),
        ({"netns": "nosuch"}, "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        EventReader(**options)  # type: ignore[arg-type]


# With programs that xdpkit attached


@contextlib.contextmanager
def _linked(loaded: Program, veth: Veth) -> Iterator[None]:
    with entered(veth.netns):
        link = bpf.link_create(loaded.fileno(), veth.interface.index, AttachType.XDP)
    with link:
        yield


@contextlib.contextmanager
def tapping(veth: Veth, pin_root: str, **options: Any) -> Iterator[EventReader]:
    named = [veth.name]
    with EventReader(netns=veth.netns, interfaces=named, pin_root=pin_root, **options) as reader:
        yield reader


@pytest.mark.parametrize("returned", [0, 42])
def test_a_tapped_program_tells_of_a_packet_once_with_queue_length_and_bytes(
    one: Veth, pin_root: str, returned: int
) -> None:
    with (
        added(one, pin_root, returning(returned), "a_program_of_ours") as number,
        tapping(one, pin_root, snaplen=20) as reader,
    ):
        assert reader.tapped == {one.name: ("a_program_of_ours",)}
        assert reader.not_tapped == ()
        send(one)
        (report,) = [*read(reader, 1), *rest(reader)]
        assert (reader.seen, reader.suppressed, reader.lost) == (1, 0, 0)
    assert report.event.kind is Kind.FRAME
    assert report.event.action == returned
    assert (report.event.queue, report.event.length) == (0, SIZE)
    assert report.event.data == frame()[:20]
    assert (report.program_id, report.program) == (number, "a_program_of_ours")


def test_a_tapped_program_without_credit_is_counted_once(one: Veth, pin_root: str) -> None:
    with added(one, pin_root, ABORTED, "ours"), tapping(one, pin_root, rate=2) as reader:
        send(one, 10)
        wait_until(lambda: reader.seen >= 10)
        assert (reader.seen, reader.suppressed, reader.lost) == (10, 8, 0)
        assert [each.event.kind for each in rest(reader)] == [Kind.FRAME] * 2


def test_a_failed_redirect_of_a_tapped_program_bears_the_programs_own_id(
    one: Veth, pin_root: str
) -> None:
    code = redirecting(NO_SUCH_INTERFACE)
    with added(one, pin_root, code, "ours") as number, tapping(one, pin_root) as reader:
        send(one)
        (report,) = [*read(reader, 1), *rest(reader)]
    assert report.event.kind is Kind.REDIRECT_ERROR
    assert (report.program_id, report.program) == (number, "ours")


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers notice at once what has changed, not once a second."""
    monkeypatch.setattr(events, "_LOOK", 0.0)


@pytest.mark.usefixtures("looking_often")
def test_a_program_that_comes_later_is_tapped_too(one: Veth, pin_root: str) -> None:
    with tapping(one, pin_root) as reader:
        assert reader.tapped == {}
        with added(one, pin_root, ABORTED, "later"):
            kinds: set[Kind] = set()
            end = time.monotonic() + _LONG
            while time.monotonic() < end and Kind.FRAME not in kinds:
                send(one)
                reports = [each for each in reader.read(0.2) if isinstance(each, Report)]
                kinds |= {each.event.kind for each in reports}
            assert reader.tapped == {one.name: ("later",)}
    assert Kind.FRAME in kinds


def test_the_program_of_another_tool_is_told_of_by_the_tracepoint(one: Veth, pin_root: str) -> None:
    with attached(ABORTED, one.name, one.netns), tapping(one, pin_root) as reader:
        assert reader.tapped == {}
        assert len(reader.not_tapped) == 1
        send(one)
        (report,) = [*read(reader, 1), *rest(reader)]
    assert report.event.kind is Kind.EXCEPTION


def test_programs_are_left_alone_if_no_frames_are_wanted(one: Veth, pin_root: str) -> None:
    with added(one, pin_root, ABORTED, "ours"):
        before = one.interface.xdp
        for options in ({"frames": False}, {"actions": ["redirect"]}):
            with tapping(one, pin_root, **options):
                assert one.interface.xdp == before


@pytest.mark.parametrize("frames", [True, False])
def test_a_program_is_named_by_the_id_that_it_was_attached_with(
    one: Veth, pin_root: str, frames: bool
) -> None:
    with added(one, pin_root, ABORTED, "ours") as number:
        Hook(one.name, netns=one.netns, pin_root=pin_root).counters.enable()
        assert one.interface.xdp.native != number
        with tapping(one, pin_root, frames=frames, programs=[number]) as reader:
            send(one)
            assert [each.program_id for each in [*read(reader, 1), *rest(reader)]] == [number]


@pytest.mark.parametrize("frames", [True, False])
def test_programs_that_were_not_named_cost_no_credit(
    one: Veth, pin_root: str, frames: bool
) -> None:
    with added(one, pin_root, ABORTED, "ours"):
        before = one.interface.xdp
        with tapping(one, pin_root, frames=frames, programs=["another"], rate=1) as reader:
            assert one.interface.xdp == before
            assert (reader.tapped, reader.not_tapped) == ({}, ())
            send(one, 10)
            assert rest(reader) == []
            assert (reader.seen, reader.suppressed) == (0, 0)


def test_of_several_programs_those_that_were_named_are_tapped(netns: str, pin_root: str) -> None:
    veth = make_veth(netns, queues=2)
    hook = Hook(veth.name, netns=netns, pin_root=pin_root)
    with program(ABORTED, "first") as first, program(ABORTED, "second") as second:
        hook.queues[0].add(first, policy="report").close()
        hook.queues[1].add(second, policy="report").close()
        hook.counters.enable()
        for named in ("second", second.id):
            with tapping(veth, pin_root, programs=[named]) as reader:
                assert reader.tapped == {veth.name: ("second",)}
                assert reader.not_tapped == ()
    hook.clear()


def test_the_program_of_another_tool_that_was_not_named_is_not_mentioned(
    one: Veth, pin_root: str
) -> None:
    with (
        attached(ABORTED, one.name, one.netns),
        tapping(one, pin_root, programs=["another"]) as reader,
    ):
        assert reader.not_tapped == ()
        send(one)
        assert rest(reader) == []
        assert reader.seen == 0


@pytest.mark.usefixtures("looking_often")
def test_a_named_program_that_comes_later_is_tapped(one: Veth, pin_root: str) -> None:
    name = "a_program_with_a_long_name"
    with (
        tapping(one, pin_root, programs=[name]) as reader,
        added(one, pin_root, ABORTED, name),
    ):
        list(reader.read(0))
        assert reader.tapped == {one.name: (name,)}


@pytest.mark.usefixtures("looking_often")
def test_a_tap_that_was_refused_is_tried_again(one: Veth, pin_root: str) -> None:
    with (
        added(one, pin_root, ABORTED, "ours"),
        tapping(one, pin_root) as first,
        tapping(one, pin_root) as second,
    ):
        assert second.tapped == {}
        (sentence,) = second.not_tapped
        assert "another reader has the frames" in sentence
        first.close()
        list(second.read(0))
        assert second.tapped == {one.name: ("ours",)}
        assert second.not_tapped == ()
        send(one)
        (report,) = [*read(second, 1), *rest(second)]
    assert report.event.kind is Kind.FRAME


def test_what_could_not_be_looked_at_is_looked_at_the_next_time(
    one: Veth, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        contextlib.closing(Watched(one.interface, pin_root, None)) as watched,
        added(one, pin_root, ABORTED, "ours") as number,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Hook, "status", _busy)
            assert not watched.look()
        assert _on_hook(watched) == []
        assert watched.look()
        assert _on_hook(watched) == [number]
        assert not watched.look()


def _on_hook(watched: Watched) -> list[int]:
    return [each.logical_id for each in watched.hook.programs]


def _busy(_: Hook) -> None:
    raise HookBusy("look at the hook", cause="somebody changes it")


@pytest.mark.usefixtures("looking_often")
def test_an_interface_that_comes_back_is_watched_on(one: Veth, pin_root: str) -> None:
    with tapping(one, pin_root) as reader:
        with rtnetlink(one.netns) as connection:
            connection.link("del", ifname=one.name)
            connection.link("add", ifname=one.name, kind="veth", peer={"ifname": one.peer})
            for name in (one.name, one.peer):
                connection.link("set", ifname=name, state="up")
        with attached(ABORTED, one.name, one.netns):
            found: list[Report] = []
            end = time.monotonic() + _LONG
            while time.monotonic() < end and not found:
                send(one)
                found = [each for each in reader.read(0.2) if isinstance(each, Report)]
    assert found
    assert found[0].where is not None
    assert found[0].where.interface == one.name


def test_after_a_reader_the_programs_are_as_they_were(one: Veth, pin_root: str) -> None:
    with added(one, pin_root, ABORTED, "ours"):
        before = _maps_of(one)
        with tapping(one, pin_root) as reader:
            assert _maps_of(one) != before
            reader.stop()
            assert _maps_of(one) == before


def _maps_of(veth: Veth) -> Counter[str]:
    """Return the names of the maps that the program on an interface uses."""
    number = veth.interface.xdp.native
    assert number is not None
    descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
    assert descriptor is not None
    with descriptor:
        _, ids = bpf.prog_info(descriptor.fileno())
    names: Counter[str] = Counter()
    for each in ids:
        with Map.from_id(each) as found:
            names[found.name] += 1
    return names
