# SPDX-License-Identifier: Apache-2.0
"""What the fields that xdpkit adds to the context cost for each packet.

A program compares one number and drops the packet; without a field, the number is its own. A
look-up finds the interface's port among 64 ports.
"""

from __future__ import annotations

import socket
import struct
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.packets import Candidate, place, print_table
from xdpkit.compiler import compile
from xdpkit.kernel import Context, Map, Program, load
from xdpkit.obj import Object, read
from xdpkit.uapi.bpf import MapType

PORTS = 64

AIMS = """\
Aims: a constant adds nothing that can be measured; a look-up no more than one by hand."""

_U32 = struct.Struct("=I")


def main() -> None:
    """Print a line for each field, and what is aimed at."""
    print("What the extended context adds for each packet: medians of rounds, by turns")
    with ExitStack() as resources:
        where = resources.enter_context(place(1))
        candidates = _candidates(_compiled(), resources)
        where.measure(candidates)
    print_table(candidates)
    print(AIMS)


def _compiled() -> Object:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(__file__).with_name("context.c")
        return read(compile(source, Path(folder, "context.o")).path)


def _candidates(obj: Object, resources: ExitStack) -> list[Candidate]:
    ports = {index: 0 for index, _ in socket.if_nameindex()}
    # The others are of interfaces that are not there.
    ports |= {max(ports) + number: number for number in range(1, PORTS - len(ports) + 1)}
    numbers = Map.create(
        MapType.HASH, key_size=4, value_size=4, max_entries=PORTS, name="xdpkit_port_numbers"
    )
    resources.enter_context(numbers)
    for index, port in ports.items():
        numbers[_U32.pack(index)] = _U32.pack(port)

    def loaded(name: str, context: Context) -> Program:
        maps = {"numbers": numbers} if name == "by_hand" else {}
        return resources.enter_context(load(obj.programs[name], maps=maps, context=context))

    constant, looked_up = Context(port_index=3, cookie=7), Context(port_numbers=numbers)
    without = Candidate("without", loaded("without", constant), (0,))
    in_frags = Candidate("without, frags", loaded("without_frags", constant), (0,), without)
    return [
        without,
        Candidate("port_index, a constant", loaded("port_index", constant), (0,), without),
        Candidate("port_index, looked up", loaded("port_index", looked_up), (0,), without),
        Candidate("a look-up by hand", loaded("by_hand", constant), (0,), without),
        Candidate("cookie", loaded("cookie", constant), (0,), without),
        Candidate("frame_len", loaded("frame_len", constant), (0,), without),
        in_frags,
        Candidate("frame_len, frags", loaded("frame_len_frags", constant), (0,), in_frags),
    ]


if __name__ == "__main__":
    main()
