# SPDX-License-Identifier: Apache-2.0
"""Test runs: packets in, packets and actions out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kernel import old_kernel
from tests.kernel.compiled import assembled, read, returning
from tests.kernel.net import Veth
from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Collection, XdpContext, load, load_all
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import XdpAction

PACKET = bytes(range(100))


@pytest.fixture
def resizing() -> Iterator[Collection]:
    with load_all(read("resizing")) as loaded:
        yield loaded


@pytest.mark.parametrize("action", list(XdpAction))
def test_the_action_is_what_the_program_returns(action: XdpAction) -> None:
    with returning(action) as program:
        result = program.run(PACKET)
    assert result.action is action
    assert result.packet == PACKET


def test_a_number_that_is_no_action_stays_a_number() -> None:
    with returning(42) as program:
        action = program.run(PACKET).action
    assert action == 42
    assert not isinstance(action, XdpAction)


@pytest.mark.parametrize(
    ("program", "length"), [("grow_front", 164), ("grow_back", 300), ("shrink", 50)]
)
def test_the_packet_comes_out_as_the_program_left_it(
    program: str, length: int, resizing: Collection
) -> None:
    result = resizing.programs[program].run(PACKET)
    assert len(result.packet) == length
    kept = PACKET[: min(length, 100)]
    assert result.packet.endswith(kept) if program == "grow_front" else kept in result.packet


def test_each_run_gets_the_packet_as_the_one_before_left_it(resizing: Collection) -> None:
    result = resizing.programs["grow_front"].run(PACKET, repeat=2)
    assert len(result.packet) == 228
    assert result.duration_ns >= 0


@pytest.mark.needs("test-run-context")
def test_metadata_goes_in_and_out_apart_from_the_packet(resizing: Collection) -> None:
    result = resizing.programs["mark"].run(PACKET)
    assert result.packet == PACKET
    assert result.context == XdpContext(metadata=b"4321")
    result = resizing.programs["mark"].run(PACKET, context=XdpContext(metadata=b"abcdefgh"))
    assert result.packet == PACKET
    assert result.context is not None
    assert result.context.metadata == b"4321abcdefgh"


@pytest.mark.needs("test-run-context")
def test_a_packet_comes_in_by_an_interface_and_queue(resizing: Collection, veth: Veth) -> None:
    interface = veth.interface.index
    program = resizing.programs["queue_of"]
    with entered(veth.netns):
        result = program.run(PACKET, context=XdpContext(b"", interface, 1))
        assert result.action == 100 * interface + 1
        assert result.context == XdpContext(b"", interface, 1)
        with pytest.raises(UsageError, match="no interface 99999"):
            program.run(PACKET, context=XdpContext(ingress_ifindex=99999))
        with pytest.raises(KernelRefused):
            program.run(PACKET, context=XdpContext(b"", interface, 77))


@pytest.mark.needs("xdp-frags")
def test_a_packet_of_many_pages_goes_through_a_program_with_frags() -> None:
    packet = os.urandom(20000)
    with load(read("frags").programs["length_of"]) as program:
        result = program.run(packet)
    assert result.action == len(packet)
    assert result.packet == packet


@pytest.mark.needs("live-frames")
def test_live_frames_return_nothing() -> None:
    with returning(XdpAction.DROP) as program:
        result = program.run(PACKET, live=True, repeat=1000, batch_size=64)
    assert result.action is None
    assert result.packet == b""
    assert result.context is None


def test_a_run_can_be_kept_on_a_cpu() -> None:
    cpus = os.sched_getaffinity(0)
    with assembled(asm.call("get_smp_processor_id"), asm.exit()) as program:
        for cpu in cpus:
            assert program.run(PACKET, cpu=cpu).action == cpu
        with pytest.raises(UsageError, match="cannot run on CPU 8191"):
            program.run(PACKET, cpu=8191)
    assert os.sched_getaffinity(0) == cpus


def test_arguments_that_make_no_sense_are_refused_before_anything_runs() -> None:
    with assembled(asm.mov(Register.R0, 2), asm.exit()) as program:
        with pytest.raises(UsageError, match="13 bytes"):
            program.run(bytes(13))
        with pytest.raises(UsageError, match="needs a packet"):
            program.run(None)
        with pytest.raises(UsageError, match="0 times"):
            program.run(PACKET, repeat=0)
        with pytest.raises(UsageError, match="only live frames"):
            program.run(PACKET, batch_size=8)
        with pytest.raises(UsageError, match="at most 256"):
            program.run(PACKET, live=True, batch_size=257)
        with pytest.raises(UsageError, match="multiple of 4"):
            program.run(PACKET, context=XdpContext(metadata=b"abc"))
        with pytest.raises(UsageError, match="without ingress_ifindex"):
            program.run(PACKET, context=XdpContext(rx_queue_index=1))


def test_a_kernel_without_contexts_runs_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with old_kernel.without(monkeypatch, old_kernel.run_context), returning(2) as program:
        result = program.run(PACKET)
        assert (result.action, result.packet, result.context) == (XdpAction.PASS, PACKET, None)
        with pytest.raises(RequirementUnmet, match="no context"):
            program.run(PACKET, context=XdpContext(metadata=b"abcd"))


def test_live_frames_never_become_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        old_kernel.without(monkeypatch, old_kernel.live_frames),
        returning(1) as program,
        pytest.raises(RequirementUnmet, match="no live frames"),
    ):
        program.run(PACKET, live=True)


def test_a_packet_that_no_test_run_takes_is_named_with_the_limit() -> None:
    with returning(XdpAction.PASS) as program:
        with pytest.raises(UsageError, match=r"has 1000000 bytes.* at most \d+"):
            program.run(bytes(1_000_000))
        assert program.run(PACKET).action is XdpAction.PASS


@pytest.mark.needs("live-frames")
def test_a_live_frame_fits_into_a_page() -> None:
    with (
        returning(XdpAction.DROP) as program,
        pytest.raises(UsageError, match=r"has 4096 bytes.*fits into a page"),
    ):
        program.run(bytes(4096), live=True)
