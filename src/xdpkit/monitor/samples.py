# SPDX-License-Identifier: Apache-2.0
"""The standard counters: one set of names and labels, for every output.

Ids change whenever a program is loaded anew, and a label that changes makes new series of old ones:
so ids are in ``xdpkit_program_info`` only. The name of a namespace is empty for the one that was
asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from xdpkit.monitor.model import Snapshot, Where


@dataclass(frozen=True, slots=True)
class Metric:
    """A standard counter, or what describes others.

    Attributes:
        name: without the ending that a counter has in some formats (``_total``).
        labels: the names of its labels, in order.
        meaning: one sentence.
        is_counter: whether it counts; the others are 1, or a state.
    """

    name: str
    labels: tuple[str, ...]
    meaning: str
    is_counter: bool = True


_HERE = ("netns", "interface")

RETURNED = Metric(
    "xdpkit_returned_packets",
    (*_HERE, "queue", "program", "action"),
    "Packets by what the program returned for them.",
)
RETURNED_BYTES = Metric(
    "xdpkit_returned_bytes",
    (*_HERE, "queue", "program", "action"),
    "Bytes of packets by what the program returned for them.",
)
NO_PROGRAM = Metric(
    "xdpkit_no_program_packets",
    (*_HERE, "queue"),
    "Packets of RX queues that no program serves; they pass.",
)
ERRORS = Metric(
    "xdpkit_errors",
    (*_HERE, "program", "action", "reason"),
    "Packets that were lost after the program had run, without those of redirect errors.",
)
REDIRECT_ERRORS = Metric(
    "xdpkit_redirect_errors",
    (*_HERE, "program", "target", "reason"),
    "Packets that could not be redirected, by the kernel's errno.",
)
TRANSMITTED = Metric(
    "xdpkit_transmitted_frames",
    (*_HERE, "source"),
    "Frames of redirects, or on a veth of XDP_TX, that an interface has taken for transmission.",
)
TRANSMIT_DROPS = Metric(
    "xdpkit_transmit_drops",
    (*_HERE, "source"),
    "Frames of redirects, or on a veth of XDP_TX, that an interface did not take.",
)
CPUMAP_FRAMES = Metric(
    "xdpkit_cpumap_frames", ("map", "cpu"), "Frames that the queue of a cpumap's entry has taken."
)
CPUMAP_DROPS = Metric(
    "xdpkit_cpumap_drops", ("map", "cpu", "reason"), "Frames that were lost in a cpumap."
)
DRIVER = Metric(
    "xdpkit_driver_packets",
    (*_HERE, "queue", "driver", "event"),
    "What the driver says has happened (ethtool -S), under standard names.",
)
DRIVER_BYTES = Metric(
    "xdpkit_driver_bytes",
    (*_HERE, "queue", "driver"),
    "Bytes of the packets that the driver gave to the program, as it says.",
)
_PORT = ("table", "port")

PORT_RECEIVED = Metric(
    "xdpkit_port_received_frames",
    _PORT,
    "Frames that the interface of a port has received, as the kernel counts them.",
)
PORT_RECEIVED_BYTES = Metric(
    "xdpkit_port_received_bytes", _PORT, "Bytes that the interface of a port has received."
)
PORT_SENT = Metric(
    "xdpkit_port_sent_frames",
    _PORT,
    "Frames that the interface of a port has sent, as the kernel counts them.",
)
PORT_SENT_BYTES = Metric(
    "xdpkit_port_sent_bytes", _PORT, "Bytes that the interface of a port has sent."
)
PORT_ABSENT = Metric(
    "xdpkit_port_absent", _PORT, "Frames that were sent to a port while it had no interface."
)
PORT_ERRORS = Metric(
    "xdpkit_port_errors",
    (*_PORT, "reason"),
    "Frames to a port that were lost: redirects by the kernel's errno, egress programs by what they"
    " returned, and tx_failed.",
)
PORT_TRANSMIT_DROPS = Metric(
    "xdpkit_port_transmit_drops",
    _PORT,
    "Redirected frames that the interface of a port did not take, or its egress program dropped.",
)
PORT_XMIT_ERRORS = Metric(
    "xdpkit_port_xmit_errors",
    _PORT,
    "Redirected frames that the interface of a port did not take, as its driver says.",
)
BROADCAST_ERRORS = Metric(
    "xdpkit_port_broadcast_errors",
    ("table", "reason"),
    "Broadcasts by a port table that failed as a whole, by the kernel's errno.",
)
PORT_UNASSIGNED = Metric(
    "xdpkit_port_unassigned",
    ("table",),
    "Frames that were sent to numbers which no port of the table has.",
)
ATTACH_FAILURES = Metric(
    "xdpkit_attach_failures", ("reason",), "XDP links that the kernel refused to attach."
)
OTHER = Metric(
    "xdpkit_other_errors",
    (),
    "Errors that could not be told apart any more, as there were too many kinds of them.",
)
MISSED = Metric(
    "xdpkit_missed_events", (), "Errors that could not be counted, as the counting ran already."
)
PROGRAM = Metric(
    "xdpkit_program_info",
    (*_HERE, "queue", "program", "program_id", "tag", "mode", "owner"),
    "A program on an interface, with its id; always 1.",
    is_counter=False,
)
PORT = Metric(
    "xdpkit_port_info",
    (*_PORT, "port_name", "netns", "interface"),
    "A port of a table, with its interface; always 1.",
    is_counter=False,
)
PORT_UP = Metric(
    "xdpkit_port_up",
    _PORT,
    "1 if the interface of a port is there and up, else 0; not there for a number without one.",
    is_counter=False,
)
INSTALLED = Metric(
    "xdpkit_monitor_installed",
    (),
    "1 if errors are counted by resident programs (xdpkit monitor install), else 0; not there if"
    " that cannot be seen.",
    is_counter=False,
)

METRICS = (
    RETURNED,
    RETURNED_BYTES,
    NO_PROGRAM,
    ERRORS,
    REDIRECT_ERRORS,
    TRANSMITTED,
    TRANSMIT_DROPS,
    CPUMAP_FRAMES,
    CPUMAP_DROPS,
    DRIVER,
    DRIVER_BYTES,
    PORT_RECEIVED,
    PORT_RECEIVED_BYTES,
    PORT_SENT,
    PORT_SENT_BYTES,
    PORT_ABSENT,
    PORT_ERRORS,
    PORT_TRANSMIT_DROPS,
    PORT_XMIT_ERRORS,
    BROADCAST_ERRORS,
    PORT_UNASSIGNED,
    ATTACH_FAILURES,
    OTHER,
    MISSED,
    PROGRAM,
    PORT,
    PORT_UP,
    INSTALLED,
)
"""All of them, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A number under its standard name.

    Attributes:
        metric: what it is. labels: the values of its labels, in the metric's order.
        value: the number.
    """

    metric: Metric
    labels: tuple[str, ...]
    value: int

    @property
    def labelled(self) -> Mapping[str, str]:
        """The labels by name."""
        return MappingProxyType(dict(zip(self.metric.labels, self.labels, strict=True)))


def samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Yield what was counted, each series once.

    Programs of one name on one interface are one series, and so are errors that only differ in ids.
    """
    sums: dict[tuple[Metric, tuple[str, ...]], int] = {}
    for sample in _each(snapshot):
        key = (sample.metric, sample.labels)
        if sample.metric.is_counter:
            sums[key] = sums.get(key, 0) + sample.value
        else:
            sums[key] = sample.value
    for (metric, labels), value in sums.items():
        yield Sample(metric, labels, value)


def _each(snapshot: Snapshot) -> Iterator[Sample]:
    yield from _returned(snapshot)
    yield from _tracepoints(snapshot)
    for driver in snapshot.drivers:
        for count in driver.counts:
            queue = "" if count.queue is None else str(count.queue)
            here = (*_place(driver.where), queue, driver.driver)
            if count.event == "bytes":
                yield Sample(DRIVER_BYTES, here, count.value)
            else:
                yield Sample(DRIVER, (*here, count.event), count.value)
    for program in snapshot.attached:
        described = (
            *_place(program.where),
            program.queue,
            program.program,
            str(program.program_id),
            program.tag,
            program.mode,
            program.owner,
        )
        yield Sample(PROGRAM, described, 1)
    yield from _ports(snapshot)
    if snapshot.unread is None:
        yield Sample(INSTALLED, (), int(snapshot.installed is not None))


def _returned(snapshot: Snapshot) -> Iterator[Sample]:
    from xdpkit.rewrite import COUNTED

    for report in snapshot.returned:
        here = ("", report.interface.name)
        for program in report.programs:
            for queue, counts in program.per_queue.items():
                for name, packets in zip(COUNTED, counts.packets, strict=True):
                    yield Sample(RETURNED, (*here, str(queue), program.name, name), packets)
                for name, length in zip(COUNTED, counts.bytes or (), strict=bool(counts.bytes)):
                    yield Sample(RETURNED_BYTES, (*here, str(queue), program.name, name), length)
        for queue, found in report.no_program.items():
            yield Sample(NO_PROGRAM, (*here, str(queue)), found.packets)


def _tracepoints(snapshot: Snapshot) -> Iterator[Sample]:
    found = snapshot.tracepoints
    for error in found.errors:
        labels = (*_place(error.where), error.program, error.action, error.reason.value)
        yield Sample(ERRORS, labels, error.packets)
    for failed in found.redirect_errors:
        labels = (*_place(failed.where), failed.program, failed.target.name, failed.error)
        yield Sample(REDIRECT_ERRORS, labels, failed.packets)
    for sent in found.transmits:
        source = sent.source.title if sent.source is not None else ""
        yield Sample(TRANSMITTED, (*_place(sent.where), source), sent.sent)
        yield Sample(TRANSMIT_DROPS, (*_place(sent.where), source), sent.dropped)
    for cpumap in found.cpumaps:
        here = (cpumap.map_name, str(cpumap.cpu))
        yield Sample(CPUMAP_FRAMES, here, cpumap.enqueued)
        yield Sample(CPUMAP_DROPS, (*here, "queue_full"), cpumap.queue_full)
        yield Sample(CPUMAP_DROPS, (*here, "no_memory"), cpumap.no_memory)
    for text, times in found.attach_failures.items():
        yield Sample(ATTACH_FAILURES, (text,), times)
    if snapshot.installed is not None:
        yield Sample(OTHER, (), found.other)
        yield Sample(MISSED, (), found.missed)


def _ports(snapshot: Snapshot) -> Iterator[Sample]:
    from xdpkit.monitor.portcounts import ABSENT

    for table in snapshot.tables:
        for port in table.ports:
            here = (table.name, str(port.number))
            if port.where is not None:
                yield Sample(PORT, (*here, port.name, *_place(port.where)), 1)
                yield Sample(PORT_UP, here, int(port.is_up))
            counts = (
                (PORT_RECEIVED, port.received),
                (PORT_RECEIVED_BYTES, port.received_bytes),
                (PORT_SENT, port.sent),
                (PORT_SENT_BYTES, port.sent_bytes),
                (PORT_ABSENT, port.absent),
                (PORT_TRANSMIT_DROPS, port.transmit_drops),
                (PORT_XMIT_ERRORS, port.xmit_errors),
            )
            for metric, value in counts:
                if value is not None:
                    yield Sample(metric, here, value)
            for error in port.errors:
                if error.reason != ABSENT:
                    yield Sample(PORT_ERRORS, (*here, error.reason), error.frames)
        for failed in table.broadcast_errors:
            yield Sample(BROADCAST_ERRORS, (table.name, failed.reason), failed.frames)
        yield Sample(PORT_UNASSIGNED, (table.name,), sum(table.unassigned.values()))


def _place(where: Where) -> tuple[str, str]:
    return where.netns, where.interface
