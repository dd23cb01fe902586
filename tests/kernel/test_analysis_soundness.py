# SPDX-License-Identifier: Apache-2.0
"""What programs return in the kernel is among what the analysis says that they can return."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xdpkit
from tests.corpus import build
from tests.corpus_actions import cases, random_programs
from tests.corpus_actions.cases import Case
from tests.kernel.net import Veth
from xdpkit import XdpAction
from xdpkit.analysis import Subject, analyse, subject_of
from xdpkit.errors import KernelRefused
from xdpkit.isa import Instruction, asm, disassemble, encode
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import testrun
from xdpkit.kernel.maps import Map
from xdpkit.kernel.programs import Program
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import MapType, ProgType

WORDS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 42, 77, 127, 128, 0x40, 255, 1 << 31, (1 << 32) - 1)
LENGTH = 64

SOURCES = [
    pytest.param(source, compiler, id=f"{source.stem}-{compiler.name}")
    for source in sorted({case.source for case in cases.cases()})
    for compiler in cases.compilers()
    if build.suits(source, compiler)
]

MAP_NUMBERS = (0, 1, 2, 3, 4, 5, 1 << 31, (1 << 32) - 1)

# What a test run cannot provoke: a frame too short for an Ethernet header or without room for four
# bytes more, a full slot that cannot be tail-called.
NOT_SEEN = {
    "packets.by_protocol": {XdpAction.ABORTED},
    "packets.answers": {XdpAction.ABORTED},
    "packets.leaves_metadata": {XdpAction.ABORTED},
    "packets.grows_at_the_head": {XdpAction.DROP},
    "packets.shrinks_at_the_tail": {XdpAction.DROP},
    "tail_calls.constant_slot": {XdpAction.PASS},
}


def packets(seed: int, count: int) -> Iterator[bytes]:
    """Yield packets whose first words are small and special numbers, and some random ones."""
    chance = random.Random(seed)
    for _ in range(count):
        words = [
            chance.choice(WORDS) if chance.random() < 0.8 else chance.getrandbits(32)
            for _ in range(LENGTH // 4)
        ]
        yield struct.pack(f"<{len(words)}I", *words)
    for word in WORDS:
        yield struct.pack("<I", word) + bytes(LENGTH - 4)
        yield bytes(11) + struct.pack("<I", word) + bytes(LENGTH - 15)
    yield bytes(12) + b"\x86\xdd" + bytes(LENGTH - 14)


def fill(maps: Mapping[str, Map], turn: int, ifindex: int) -> None:
    """Put numbers into the maps, others in each turn."""
    numbers = itertools.cycle(MAP_NUMBERS[turn:] + MAP_NUMBERS[:turn])
    for name, found in maps.items():
        if name in ("verdicts", ".bss", ".data"):
            for key in range(found.max_entries):
                number = next(numbers)
                value = found[key]
                found[key] = dict.fromkeys(value, number) if isinstance(value, dict) else number
        elif found.type == MapType.HASH:
            found.clear()
            for key in WORDS[turn::3]:
                found[key] = next(numbers)
        elif found.type == MapType.QUEUE:
            with contextlib.suppress(IndexError):
                found.pop()
            found.push(next(numbers))
        elif found.type in (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP):
            with contextlib.suppress(KeyError):
                del found[0]
            if turn % 2:
                found[0] = 64 if found.type == MapType.CPUMAP else ifindex


def observed(program: Program, inputs: Iterable[bytes]) -> set[int]:
    return {int(program.run(packet).action or 0) for packet in inputs}


def loadable(source: Path) -> list[Case]:
    """Return the programs of a source that this kernel takes."""
    kernel = cases.running_kernel()
    return [case for case in cases.cases() if case.source == source and case.needs <= kernel]


@pytest.mark.parametrize(("source", "compiler"), SOURCES)
def test_no_program_of_the_corpus_returns_what_was_not_foreseen(
    source: Path, compiler: build.Compiler, veth: Veth
) -> None:
    obj = cases.read(source, compiler)
    for case in loadable(source):
        seen = set()
        with entered(veth.netns), xdpkit.load(obj.programs[case.name]) as program:
            for turn in range(len(MAP_NUMBERS)):
                fill(program.maps, turn, veth.interface.index)
                seen |= observed(program, packets(turn, 20))
        actions = analyse(subject_of(obj.programs[case.name])).actions
        assert all(value in actions for value in seen), f"{case}: {seen}, not {actions}"
        if case.actions is not None:
            assert seen <= case.actions, f"the answer of {case} is wrong"
            assert seen | NOT_SEEN.get(str(case), set()) >= case.actions, str(case)


# The verifier adds to the frames of functions that call bpf_loop().
WITHOUT_LOOPS = [source for source in SOURCES if "loops" not in str(source.id)]


@pytest.mark.parametrize(("source", "compiler"), WITHOUT_LOOPS)
def test_frames_are_as_deep_as_the_verifier_says(source: Path, compiler: build.Compiler) -> None:
    obj = cases.read(source, compiler)
    for case in loadable(source):
        spec = obj.programs[case.name]
        with xdpkit.load(spec, log_level=4) as program:
            depths = re.search(r"^stack depth ([\d+]+)", program.log, re.MULTILINE)
        assert depths is not None
        # Of frames without stack the verifier lists its own, too.
        theirs = sorted(int(depth) for depth in depths[1].split("+") if depth != "0")
        ours = sorted(use.stack for use in analyse(subject_of(spec)).functions if use.stack)
        assert ours == theirs, str(case)


def load(code: bytes) -> Fd:
    return bpf.prog_load(NewProgram(ProgType.XDP, code, "GPL"), what="load a random program")


def knows_modern_instructions() -> bool:
    extended = (asm.mov(Register.R1, 1), asm.mov_sx(Register.R0, Register.R1, 8), asm.exit())
    try:
        load(encode(extended)).close()
    except KernelRefused:
        return False
    return True


def is_taken(program: tuple[Instruction, ...], seed: int) -> bool:
    """Compare a program's actions with what was foreseen; return whether the kernel took it."""
    try:
        fd = load(encode(program))
    except KernelRefused:
        return False
    actions = analyse(Subject("random", program)).actions
    with fd:
        for packet in packets(seed, 20):
            result = testrun.run(fd.fileno(), ProgType.XDP, packet, name="random").action
            if int(result or 0) not in actions:
                text = "\n".join(f"{slot}: {line}" for slot, line in disassemble(program))
                pytest.fail(f"returned {result}, not {actions}, for {packet.hex()}\n{text}")
    return True


@pytest.mark.parametrize("modern", [False, True], ids=["base", "modern"])
def test_no_random_program_returns_what_was_not_foreseen(modern: bool) -> None:
    if modern and not knows_modern_instructions():
        pytest.skip("Linux 6.6 brought sign-extending instructions")
    taken = Counter[bool]()

    @settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
    @given(random_programs.programs(modern=modern), st.integers(0, 1000))
    def compare(program: tuple[Instruction, ...], seed: int) -> None:
        taken[is_taken(program, seed)] += 1

    compare()
    assert taken[True] > taken[False]
