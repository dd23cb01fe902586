# SPDX-License-Identifier: Apache-2.0
"""Running a program over given packets, without an interface (``BPF_PROG_TEST_RUN``)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from xdpkit.errors import KernelRefused, RequirementUnmet, UsageError
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import TestRun, TestRunOutcome
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import ProgType, TestRunFlags, XdpAction

MIN_PACKET = 14
"""ETH_HLEN: the kernel runs no program over less than an Ethernet header."""

XDP_PACKET_HEADROOM = 256

# TEST_XDP_BATCH and TEST_XDP_MAX_BATCH in net/bpf/test_run.c.
_LIVE_BATCH = 64
_MAX_LIVE_BATCH = 256
_MAX_REPEAT = (1 << 32) - 1
# How much a program can add: the headroom at the front, and at the end the rest of the last page.
_GROWTH = XDP_PACKET_HEADROOM + mmap.PAGESIZE
# struct skb_shared_info, which an skb has behind the data, takes 320 bytes on 64-bit machines.
LINEAR_ROOM = mmap.PAGESIZE - XDP_PACKET_HEADROOM - 320
"""Bytes of a packet, metadata included, that are in one page, as programs without frags need."""

# struct xdp_page_head, which live frames begin with.
_LIVE_HEAD = 112
# Kernels may be built with more; the length is looked at only where one refused it.
_FRAGMENTS = 17
_LONGEST = LINEAR_ROOM + _FRAGMENTS * mmap.PAGESIZE
_XDP_MD_SIZE = ctypes.sizeof(attr.XdpMd)
_ACTIONS = {int(action): action for action in XdpAction}


@dataclass(frozen=True, slots=True)
class XdpContext:
    """What a packet comes with, beside its bytes.

    Attributes:
        metadata: what is in the area in front of the packet (``data_meta`` to ``data``): a multiple
            of 4 bytes, at most 32 on older kernels, else 252.
        ingress_ifindex: the interface that it came in by, in this network namespace; 0 for the
            kernel's own: loopback.
        rx_queue_index: the queue of that interface; needs ingress_ifindex.
    """

    metadata: bytes = b""
    ingress_ifindex: int = 0
    rx_queue_index: int = 0


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a test run gave.

    Attributes:
        action: what the program returned: an XdpAction, or a number that is none (for programs of
            other types always a number); None for live frames, whose actions were carried out.
        packet: the packet as the last run left it; empty for live frames.
        duration_ns: nanoseconds per run, on average.
        context: as the last run left it; None for live frames and programs other than XDP.
    """

    action: XdpAction | int | None
    packet: bytes
    duration_ns: int
    context: XdpContext | None


def run(
    fd: int,
    program_type: int,
    packet: bytes | None,
    *,
    name: str,
    repeat: int = 1,
    context: XdpContext | None = None,
    live: bool = False,
    batch_size: int = 0,
    cpu: int | None = None,
) -> RunResult:
    """Run a program; see :meth:`xdpkit.kernel.programs.Program.run`."""
    what = f"test-run {name}"
    is_xdp = program_type == ProgType.XDP
    _check(what, is_xdp, packet, repeat, context, live, batch_size)
    data = None if packet is None else (context.metadata if context else b"") + packet
    request = TestRun(
        data=data,
        data_out_size=0 if live or data is None else len(data) + _GROWTH,
        repeat=repeat,
        flags=TestRunFlags.XDP_LIVE_FRAMES if live else 0,
        # Kernels that know no live frames do not look at the flag either, but refuse a batch size.
        batch_size=batch_size or (_LIVE_BATCH if live else 0),
    )
    with _on_cpu(cpu, what):
        if is_xdp and data is not None and (context is not None or not live):
            outcome = _run_with_context(fd, request, what, data, context, live)
        else:
            outcome = _run(fd, request, what)
    if not is_xdp:
        return RunResult(outcome.retval, outcome.data, outcome.duration, None)
    if live:
        return RunResult(None, b"", outcome.duration, None)
    action = _ACTIONS.get(outcome.retval, outcome.retval)
    context_out, packet_out = _split(outcome)
    return RunResult(action, packet_out, outcome.duration, context_out)


def _check(
    what: str,
    is_xdp: bool,
    packet: bytes | None,
    repeat: int,
    context: XdpContext | None,
    live: bool,
    batch_size: int,
) -> None:
    cause = None
    if packet is not None and len(packet) < MIN_PACKET:
        cause = f"the packet has {len(packet)} bytes, an Ethernet header has {MIN_PACKET}"
    elif packet is None and is_xdp:
        cause = "an XDP program needs a packet"
    elif not 0 < repeat <= _MAX_REPEAT:
        cause = f"it cannot be repeated {repeat} times"
    elif not is_xdp and (live or context is not None):
        cause = "only XDP programs have live frames and a context"
    elif batch_size and not live:
        cause = "only live frames come in batches"
    elif not 0 <= batch_size <= _MAX_LIVE_BATCH:
        cause = f"a batch of live frames has at most {_MAX_LIVE_BATCH}"
    elif context is not None and len(context.metadata) % 4:
        cause = f"the metadata has {len(context.metadata)} bytes, which is no multiple of 4"
    elif context is not None and context.rx_queue_index and not context.ingress_ifindex:
        cause = "rx_queue_index says nothing without ingress_ifindex"
    if cause is not None:
        raise UsageError(what, cause=cause)


def _xdp_md(context: XdpContext, length: int) -> bytes:
    # bpf_prog_test_run_xdp(): offsets from data_meta, which is 0.
    return bytes(
        attr.XdpMd(
            data=len(context.metadata),
            data_end=length,
            ingress_ifindex=context.ingress_ifindex,
            rx_queue_index=context.rx_queue_index,
        )
    )


def _run_with_context(
    fd: int, request: TestRun, what: str, data: bytes, context: XdpContext | None, live: bool
) -> TestRunOutcome:
    # The context says how much of what comes back is metadata, so it is always given.
    with_context = replace(
        request,
        context=_xdp_md(context or XdpContext(), len(data)),
        context_out_size=0 if live else _XDP_MD_SIZE,
    )
    try:
        return _run(fd, with_context, what)
    except KernelRefused as error:
        if error.errno == errno.ENODEV and context is not None:
            cause = f"this network namespace has no interface {context.ingress_ifindex}"
            raise UsageError(what, cause=cause) from None
        from xdpkit.probes import is_absent

        # Linux 5.15, "bpf: Support input xdp_md context in BPF_PROG_TEST_RUN".
        if error.errno != errno.EINVAL or not is_absent("test-run-context"):
            raise
        if context is not None:
            raise RequirementUnmet(
                what, cause="this kernel's test run takes no context (Linux 5.15)"
            ) from None
    return _run(fd, request, what)


def _run(fd: int, request: TestRun, what: str) -> TestRunOutcome:
    try:
        outcome = bpf.prog_test_run(fd, request, what=what)
    except KernelRefused as error:
        from xdpkit.probes import is_absent

        # Linux 5.18, "bpf: Add "live packet" mode for XDP in BPF_PROG_RUN".
        if request.flags and error.errno == errno.EINVAL and is_absent("live-frames"):
            cause = "this kernel's test run has no live frames (Linux 5.18)"
            raise RequirementUnmet(what, cause=cause) from None
        _check_length(error, request, what)
        raise
    if request.data_out_size and outcome.data_size > request.data_out_size:
        raise KernelRefused(
            what,
            errno=errno.ENOSPC,
            cause=f"the program made the packet {outcome.data_size} bytes long, and there was room"
            f" for {request.data_out_size}",
        )
    return outcome


def _check_length(error: KernelRefused, request: TestRun, what: str) -> None:
    """Raise the UsageError that an errno stands for where the packet is too long."""
    from xdpkit.probes import is_absent

    length = len(request.data or b"")
    in_a_page = LINEAR_ROOM - _LIVE_HEAD if request.flags else LINEAR_ROOM
    # bpf_prog_test_run_xdp(): no room for another fragment.
    if error.errno == errno.ENOMEM and length > _LONGEST:
        limit = f"{_LONGEST}, a page and {_FRAGMENTS} fragments (CONFIG_MAX_SKB_FRAGS)"
    # Live frames are within one page, as is all before Linux 5.18.
    elif (
        error.errno == errno.EINVAL
        and length > in_a_page
        and (request.flags or is_absent("xdp-frags"))
    ):
        limit = f"{in_a_page}, what fits into a page"
    else:
        return
    cause = f"the packet has {length} bytes, metadata included; the kernel takes at most {limit}"
    raise UsageError(what, cause=cause) from None


def _split(outcome: TestRunOutcome) -> tuple[XdpContext | None, bytes]:
    if not outcome.context:
        return None, outcome.data
    md = attr.XdpMd.from_buffer_copy(outcome.context)
    context = XdpContext(outcome.data[: md.data], md.ingress_ifindex, md.rx_queue_index)
    return context, outcome.data[md.data :]


@contextlib.contextmanager
def _on_cpu(cpu: int | None, what: str) -> Iterator[None]:
    """Stay on one CPU: BPF_F_TEST_RUN_ON_CPU is not for XDP."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError, OverflowError):
        raise UsageError(what, cause=f"this process cannot run on CPU {cpu}") from None
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
