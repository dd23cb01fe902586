# SPDX-License-Identifier: Apache-2.0
"""What a program uses, and where."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.unit.analysis.programs import (
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R10,
    Line,
    address_of,
    call,
    goto,
    kfunc,
    lookup,
    returns,
    run,
    unknown,
    when,
)
from xdpkit.analysis import Origin, Place
from xdpkit.isa import asm
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp, Register
from xdpkit.uapi.bpf import MapType
from xdpkit.uapi.helpers import HELPERS

PASS = returns(2)


def slots(origins: Iterable[Origin]) -> list[int]:
    return [origin.slot for origin in origins]


def field(register: Register, offset: int) -> Line:
    """Load a field of the context."""
    return asm.load(register, R1, offset, size=4)


def test_packet_reads_and_writes_are_told_apart() -> None:
    found = run(field(R2, 0), asm.load(R3, R2, 12, size=2), asm.store(R2, 0, R3, size=2), *PASS)
    assert slots(found.packet_reads) == [1]
    assert slots(found.packet_writes) == [2]
    assert found.metadata_reads == found.metadata_writes == ()


def test_an_atomic_operation_reads_and_writes() -> None:
    found = run(field(R2, 0), asm.mov(R3, 1), asm.atomic(Atomic.ADD, R2, 0, R3), *PASS)
    assert slots(found.packet_reads) == slots(found.packet_writes) == [2]


def test_metadata_is_not_the_packet() -> None:
    found = run(field(R2, 8), asm.store(R2, 0, 1, size=4), *PASS)
    assert slots(found.metadata_writes) == [1]
    assert found.packet_writes == ()


def test_what_the_stack_or_a_map_gets_is_no_packet_write() -> None:
    lines = (*lookup("hash"), when(JmpOp.JEQ, R0, 0, "end"), asm.store(R0, 0, 1), "end", *PASS)
    found = run(*lines)
    assert found.packet_writes == found.packet_reads == ()


@pytest.mark.parametrize(
    ("helper", "reads", "writes"),
    [
        ("xdp_load_bytes", True, False),
        ("xdp_store_bytes", False, True),
        ("perf_event_output", True, False),
        ("ktime_get_ns", False, False),
    ],
)
def test_helpers_that_read_or_write_the_packet_count(
    helper: str, reads: bool, writes: bool
) -> None:
    arguments = (asm.mov(R2, 0), asm.mov(R3, 0), asm.mov(R4, 0), asm.mov(Register.R5, 0))
    found = run(*arguments, asm.call(helper), *PASS)
    assert (bool(found.packet_reads), bool(found.packet_writes)) == (reads, writes)


def test_a_context_that_is_handed_to_a_kernel_function_is_no_access_of_its_fields() -> None:
    found = run(kfunc("some_kernel_function"), *PASS)
    assert not found.context
    assert not found.packet_writes


def test_a_packet_that_a_kernel_function_gets_may_be_written() -> None:
    found = run(field(R2, 0), kfunc("some_kernel_function"), *PASS)
    assert slots(found.packet_reads) == slots(found.packet_writes) == [1]


def test_a_packet_that_is_handed_to_a_helper_is_read() -> None:
    lines = (field(R2, 0), address_of(R1, "map hash"), asm.call("map_lookup_elem"), *PASS)
    assert slots(run(*lines).packet_reads) == [3]


@pytest.mark.parametrize(
    ("helper", "place", "delta", "grows", "shrinks"),
    [
        ("xdp_adjust_head", Place.HEAD, -14, True, False),
        ("xdp_adjust_head", Place.HEAD, 14, False, True),
        ("xdp_adjust_meta", Place.META, -4, True, False),
        ("xdp_adjust_tail", Place.TAIL, -4, False, True),
        ("xdp_adjust_tail", Place.TAIL, 4, True, False),
        ("xdp_adjust_tail", Place.TAIL, None, True, True),
        ("xdp_adjust_head", Place.HEAD, 0, False, False),
    ],
)
def test_an_adjustment_grows_or_shrinks(
    helper: str, place: Place, delta: int | None, grows: bool, shrinks: bool
) -> None:
    distance = unknown(R2) if delta is None else (asm.mov(R2, delta),)
    (found,) = run(asm.mov(R6, R1), *distance, asm.call(helper), *PASS).adjustments
    assert (found.place, found.grows, found.shrinks) == (place, grows, shrinks)


def test_fragment_helpers_are_listed() -> None:
    assert slots(run(asm.call("xdp_get_buff_len"), *PASS).fragment_helpers) == [0]


def test_a_redirect_says_where_to() -> None:
    lines = (asm.mov(R1, 7), asm.mov(R2, 0), asm.call("redirect"), asm.exit())
    (found,) = run(*lines).redirects
    assert (found.maps, found.targets, found.flags) == (None, frozenset({7}), frozenset({0}))


def test_a_redirect_through_a_map_names_it() -> None:
    lines = (*unknown(R6), address_of(R1, "map devmap"), asm.mov(R2, R6), asm.mov(R3, 2))
    found = run(*lines, asm.call("redirect_map"), asm.exit())
    (redirect,) = found.redirects
    assert (redirect.maps, redirect.targets, redirect.flags) == (("devmap",), None, frozenset({2}))
    assert list(found.maps) == ["devmap"]
    assert list(found.map_types) == [MapType.DEVMAP]


def test_a_redirect_through_either_of_two_maps_names_both() -> None:
    lines = (
        *unknown(R6),
        address_of(R1, "map devmap"),
        when(JmpOp.JEQ, R6, 0, "go"),
        address_of(R1, "map cpumap"),
        "go",
        asm.mov(R2, 0),
        asm.mov(R3, 0),
        asm.call("redirect_map"),
        asm.exit(),
    )
    (redirect,) = run(*lines).redirects
    assert redirect.maps == ("cpumap", "devmap")


def test_helpers_and_kernel_functions_are_listed_with_their_places() -> None:
    found = run(asm.call("jiffies64"), kfunc("f"), asm.call("jiffies64"), *PASS)
    assert {HELPERS[number]: slots(at) for number, at in found.helpers.items()} == {
        "jiffies64": [0, 2]
    }
    assert {name: slots(at) for name, at in found.kfuncs.items()} == {"f": [1]}


def test_what_cannot_be_reached_is_not_used() -> None:
    dead = (asm.mov(R1, 1), when(JmpOp.JEQ, R1, 1, "end"), asm.call("jiffies64"), "end", *PASS)
    found = run(*dead)
    assert found.helpers == {}
    assert found.reachable == {0, 1, 3, 4}


def test_context_fields_are_named() -> None:
    found = run(field(R2, 12), asm.load(R3, R1, 1025, size=1), field(R2, 12), *PASS)
    assert [(use.name, use.offset, use.size, slots(use.origins)) for use in found.context] == [
        ("ingress_ifindex", 12, 4, [0, 2]),
        (None, 1025, 1, [1]),
    ]
    assert not any(use.is_write for use in found.context)


def test_a_context_that_is_handed_to_a_subprogram_is_still_the_context() -> None:
    found = run(call("f"), *PASS, "f", field(R2, 16), *PASS)
    (use,) = found.context
    assert (use.name, use.origins[0].function) == ("rx_queue_index", "f")


@pytest.mark.parametrize(
    ("callee", "arguments"),
    [
        (asm.call("ktime_get_ns"), 0),
        (kfunc("bpf_rcu_read_lock"), 0),
        (kfunc("bpf_dynptr_from_xdp"), 3),
        (kfunc("some_kernel_function/2"), 2),
        # As the object file has it, and the kernel will refuse it.
        (kfunc("some_kernel_function/20"), 5),
        (kfunc("some_kernel_function"), 5),
    ],
)
def test_a_function_takes_the_arguments_that_what_it_calls_does(
    callee: Line, arguments: int
) -> None:
    found = run(call("f"), *PASS, "f", callee, *PASS)
    assert [(use.name, use.arguments) for use in found.functions] == [
        ("main", arguments),
        ("f", arguments),
    ]


FIELD = asm.alu(AluOp.ADD, R1, 1024)
KEEP = asm.mov(R6, R1)


@pytest.mark.parametrize(
    ("lines", "slot"),
    [
        ((asm.mov(R2, R1), asm.alu(AluOp.ADD, R2, 1024), asm.call("map_lookup_elem")), 2),
        ((FIELD, kfunc("some_kernel_function/1")), 1),
        ((FIELD, kfunc("some_kernel_function")), 1),
        ((FIELD, call("global_function")), 1),
        (
            (
                KEEP,
                *lookup("hash"),
                when(JmpOp.JEQ, R0, 0, "end"),
                asm.alu(AluOp.ADD, R6, 1024),
                asm.store(R0, 0, R6),
            ),
            9,
        ),
    ],
)
def test_an_address_in_the_context_that_others_get_is_taken_down(
    lines: tuple[Line, ...], slot: int
) -> None:
    found = run(*lines, "end", *PASS, "global_function", asm.load(R0, R1), *PASS)
    assert {place: slots(at) for place, at in found.addresses.items() if place} == {1024: [slot]}


@pytest.mark.parametrize(
    "lines",
    [
        # What the program follows itself.
        (FIELD, call("f")),
        (FIELD, asm.store(R10, -8, R1)),
        # What nobody reads.
        (asm.mov(R2, R1), asm.alu(AluOp.ADD, R2, 1024), kfunc("some_kernel_function/1")),
        (asm.mov(R2, R1), asm.alu(AluOp.ADD, R2, 1024), call("global_function")),
        (FIELD, asm.call("ktime_get_ns")),
        # A number that is read there.
        (asm.load(R1, R1, 1024, size=4), kfunc("some_kernel_function/1")),
    ],
)
def test_an_address_in_the_context_that_nobody_else_gets_is_not(lines: tuple[Line, ...]) -> None:
    reading = (asm.load(R0, R1, size=4), *PASS)
    found = run(*lines, *PASS, "global_function", *reading, "f", *reading)
    assert found.addresses.keys() <= {0}


def in_many_ways(*before: Line) -> tuple[Line, ...]:
    """Return a program that calls a function with one of forty numbers in r2."""
    body: list[Line] = [asm.mov(R6, R1), asm.call("ktime_get_ns"), asm.mov(Register.R7, R0)]
    for number in range(40):
        body += [
            when(JmpOp.JNE, Register.R7, number, f"not_{number}"),
            *before,
            asm.mov(R2, number),
            call("f"),
            asm.exit(),
            f"not_{number}",
        ]
    return *body, *PASS


def test_the_context_is_known_however_many_ways_a_function_is_called_in() -> None:
    found = run(*in_many_ways(asm.mov(R1, R6)), "f", field(R3, 16), asm.mov(R0, R2), asm.exit())
    assert not found.ambiguous
    assert [use.name for use in found.context] == ["rx_queue_index"]
    assert len(found.generalised) == 1


def test_what_a_function_finds_on_the_stack_is_not_known_if_it_is_called_in_many_ways() -> None:
    lines = in_many_ways(asm.store(R10, -8, R6), asm.mov(R1, R10), asm.alu(AluOp.ADD, R1, -8))
    inner = ("inner", field(R0, 16), asm.exit())
    found = run(*lines, "f", asm.load(R1, R1), asm.mov(R3, R2), call("inner"), asm.exit(), *inner)
    (use,) = [use for use in found.context if use.name == "rx_queue_index"]
    assert found.ambiguous == {origin.slot for origin in use.origins}
    assert {name.name for name in found.functions if name.slot in found.generalised} == {
        "f",
        "inner",
    }


def test_the_deepest_chain_of_frames_is_found() -> None:
    deep = ("deep", asm.store(R10, -40, 0), *PASS)
    flat = ("flat", asm.store(R10, -8, 0), call("deep"), asm.exit())
    other = ("other", asm.store(R10, -100, 0, size=4), *PASS)
    found = run(
        asm.store(R10, -8, 0), call("other"), call("flat"), asm.exit(), *deep, *flat, *other
    )
    assert found.stack.depth == 16 + 112
    assert found.stack.chain == ("main", "other")
    assert {use.name: use.stack for use in found.functions} == {
        "main": 8,
        "deep": 40,
        "flat": 8,
        "other": 104,
    }


def test_a_buffer_that_a_helper_gets_counts_as_stack() -> None:
    found = run(asm.mov(R2, R10), asm.alu(AluOp.ADD, R2, -64), *lookup("hash")[2:], *PASS)
    assert found.stack.depth == 512


def test_a_callers_stack_counts_where_it_is() -> None:
    lines = (asm.mov(R1, R10), asm.alu(AluOp.ADD, R1, -24), call("f"), *PASS)
    found = run(*lines, "f", asm.store(R1, 0, 0), *PASS)
    assert {use.name: use.stack for use in found.functions} == {"main": 24, "f": 0}


def test_tail_calls_say_from_where_and_into_what() -> None:
    jump = (address_of(R2, "map jumps"), asm.mov(R3, 3), asm.call("tail_call"))
    found = run(
        *jump, asm.mov(R1, 0), call("f"), *PASS, "f", *unknown(R3), *jump[:1], *jump[2:], *PASS
    )
    assert [
        (use.arrays, use.indices, use.functions, use.in_subprogram) for use in found.tail_calls
    ] == [(("jumps",), frozenset({3}), ("main",), False), (("jumps",), None, ("f",), True)]


def test_exceptions_are_listed() -> None:
    found = run(asm.mov(R1, 1), kfunc("bpf_throw"), *PASS)
    assert [(use.values, use.origin.slot) for use in found.throws] == [(frozenset({1}), 1)]


def test_loops_are_found_where_they_jump_back() -> None:
    assert not run(*unknown(R6), when(JmpOp.JEQ, R6, 0, "end"), asm.mov(R0, 0), "end", *PASS).loops
    back = run(*unknown(R6), "again", asm.mov(R0, 2), when(JmpOp.JEQ, R6, 5, "again"), *PASS)
    assert slots(back.loops.back_edges) == [3]
    may = run("again", (asm.may_goto(0), "end"), goto("again"), "end", *PASS)
    assert slots(may.loops.may_goto) == [0]
    assert slots(may.loops.back_edges) == [1]


def test_helpers_that_loop_are_loops_and_have_callbacks() -> None:
    lines = (asm.mov(R1, 9), address_of(R2, "callback"), asm.mov(R3, 0), asm.mov(R4, 0))
    found = run(*lines, asm.call("loop"), *PASS, "callback", asm.store(R10, -8, 0), *returns(0))
    assert slots(found.loops.calls) == [5]
    assert {name: slots(at) for name, at in found.callbacks.items()} == {"callback": [5]}
    assert found.stack.chain == ("main", "callback")
    assert [use.is_callback for use in found.functions] == [False, True]


def test_a_kernel_variable_is_listed() -> None:
    found = run(address_of(R1, "ksym jiffies"), asm.load(R0, R1), *PASS)
    assert {name: slots(at) for name, at in found.symbols.items()} == {"jiffies": [0]}


def test_a_dynptr_of_the_packet_makes_writes_packet_writes() -> None:
    lines = (asm.mov(R2, 0), asm.mov(R3, R10), asm.alu(AluOp.ADD, R3, -16))
    written = (asm.call("dynptr_write"), *PASS)
    assert run(*lines, *written).packet_writes == ()
    assert slots(run(*lines, kfunc("bpf_dynptr_from_xdp"), *written).packet_writes) == [4]
