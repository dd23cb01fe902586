# SPDX-License-Identifier: Apache-2.0
"""Programs that count do what they did, and count what they return.

``make soak`` tries all compilers, and many more random programs.
"""

from __future__ import annotations

import itertools
import random
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xdpkit
from tests.corpus import build
from tests.corpus_actions import cases, random_programs
from tests.kernel.compiled import assembled, returning
from tests.kernel.net import namespace, rtnetlink
from xdpkit import rewrite
from xdpkit.analysis import analyse, subject_of
from xdpkit.btf import Btf
from xdpkit.btf.types import Kind
from xdpkit.errors import KernelRefused, RequirementUnmet, VerifierError
from xdpkit.interfaces import resolve
from xdpkit.isa import Instruction, asm, encode
from xdpkit.isa.opcodes import AluOp, JmpOp, Register
from xdpkit.kernel import Map, Program, load_all, load_image, patch
from xdpkit.kernel.btf import vmlinux
from xdpkit.kernel.image import Image, MapReference
from xdpkit.kernel.testrun import XdpContext
from xdpkit.rewrite import Body, Counting, Counts, Member, NoProgram
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import LogBuffer, NewProgram
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, ProgType, XdpAction
from xdpkit.uapi.helpers import HELPERS

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

ENTRIES = 4
LENGTHS = (14, 60, 64, 65, 128, 590, 1514)
WORDS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 42, 77, 128, 255, 1 << 31, (1 << 32) - 1)
# What they return is another each time.
UNSTEADY = {HELPERS.index(name) for name in ("get_prandom_u32", "ktime_get_ns", "jiffies64")}

SOURCES = [
    pytest.param(
        source,
        compiler,
        id=f"{source.stem}-{compiler.name}",
        marks=[] if compiler is newest else [pytest.mark.soak],
    )
    for source in (*build.sources(), *sorted({case.source for case in cases.cases()}))
    for newest in [
        max(
            (each for each in build.compilers() if build.suits(source, each)),
            key=lambda each: each.version,
            default=None,
        )
    ]
    for compiler in build.compilers()
    if compiler.family != "gcc-bpf" and build.suits(source, compiler)
]


def packets(seed: int, count: int) -> Iterator[bytes]:
    """Yield packets of several lengths that begin with small and special numbers."""
    chance = random.Random(seed)
    for number in range(count):
        length = LENGTHS[number % len(LENGTHS)]
        words = [
            chance.choice(WORDS) if chance.random() < 0.8 else chance.getrandbits(32)
            for _ in range(length // 4 + 1)
        ]
        yield struct.pack(f"<{len(words)}I", *words)[:length]


def body_of(image: Image) -> Body:
    return Body(image.code, image.func_info, image.line_info)


def throw_id() -> int | None:
    return next(iter(vmlinux().find("bpf_throw", Kind.FUNC)), None)


def counters(*, count_bytes: bool = False, entries: int = ENTRIES) -> Map:
    return Map.create(
        MapType.PERCPU_ARRAY,
        key_size=4,
        value_size=rewrite.value_size(count_bytes=count_bytes),
        max_entries=entries,
        name="counters",
    )


def read(found: Map) -> Counts:
    return Counts.read(value for entry in found.values() for value in entry)


def load_counting(image: Image, counting: Counting, found: Map) -> Program:
    """Load a program that counts, into a map."""
    code = bytearray(counting.body.code)
    patch.set_map(code, counting.map_slots, found.id)
    return load_image(
        replace(
            image,
            code=bytes(code),
            func_info=counting.body.func_info,
            line_info=counting.body.line_info,
            maps=(*image.maps, MapReference(found.id, "counters")),
        )
    )


class Copies:
    """A program and all that its tail calls reach, loaded again so that they count."""

    def __init__(self, programs: Mapping[str, Program], arrays: Mapping[int, Map]) -> None:
        self._programs = {program.id: program for program in programs.values()}
        self._arrays = arrays
        self._owned = ExitStack()

    def make(
        self, program: Program, btf: Btf | None, found: Map, *, count_bytes: bool, queue: int | None
    ) -> Program:
        members = {
            number: Member(each.name, body_of(each.image))
            for number, each in self._programs.items()
            if each.image is not None
        }
        contents = {number: dict(array) for number, array in self._arrays.items()}
        plan = rewrite.plan_counting(program.id, members, contents, throw=throw_id())
        arrays = {
            number: self._owned.enter_context(
                Map.create(
                    MapType.PROG_ARRAY,
                    key_size=4,
                    value_size=4,
                    max_entries=self._arrays[number].max_entries,
                )
            )
            for number in plan.arrays
        }
        made = {}
        for number in plan.counted:
            image = self._programs[number].image
            assert image is not None
            code, maps = bytearray(image.code), list(image.maps)
            for slot, loaded in plan.loads.get(number, {}).items():
                patch.set_map(code, (slot,), arrays[loaded].id)
                maps.append(MapReference(arrays[loaded].id, "copies"))
            body = replace(body_of(image), code=bytes(code))
            counting = rewrite.counting(
                body,
                entries=ENTRIES,
                queue=queue,
                count_bytes=count_bytes,
                frags=bool(image.flags & ProgFlags.XDP_HAS_FRAGS),
                throw=throw_id(),
                exception_callback=rewrite.exception_callback(body, btf) if btf else None,
                name=image.name,
            )
            copy = load_counting(replace(image, maps=tuple(dict.fromkeys(maps))), counting, found)
            made[number] = self._owned.enter_context(copy)
        for number, array in arrays.items():
            for slot, member in contents[number].items():
                if member in made:
                    array[slot] = made[member]
        return made[program.id]

    def __enter__(self) -> Copies:
        return self

    def __exit__(self, *error: object) -> None:
        self._owned.close()


def expected(observed: Counter[int], lengths: Counter[int], *, count_bytes: bool) -> Counts:
    places = range(len(rewrite.COUNTED))
    return Counts(
        tuple(observed[place] for place in places),
        tuple(lengths[place] for place in places) if count_bytes else None,
    )


def compare(
    original: Program, copy: Program, found: Map, inputs: list[bytes], *, steady: bool = True
) -> None:
    """Run both over the same packets."""
    observed, lengths = Counter[int](), Counter[int]()
    before = read(found)
    count_bytes = before.bytes is not None
    assert before == expected(observed, lengths, count_bytes=count_bytes)
    for packet in inputs:
        theirs, ours = original.run(packet, cpu=0), copy.run(packet, cpu=0)
        if steady:
            assert ours.action == theirs.action, f"{original.name}: {packet.hex()}"
            assert ours.packet == theirs.packet, f"{original.name}: {packet.hex()}"
            assert ours.context == theirs.context
        place = min(int(ours.action or 0), len(rewrite.COUNTED) - 1)
        observed[place] += 1
        lengths[place] += len(packet)
    assert read(found) == expected(observed, lengths, count_bytes=count_bytes), original.name


def can_be_run(image: Image) -> bool:
    """Whether there are test runs of it: not for what is on devmaps, or bound to a device."""
    is_plain = image.attach_type in (0, AttachType.XDP) and not image.ifindex
    return image.type == ProgType.XDP and is_plain


REFUSED = {
    # It throws from a subprogram, and has no callback.
    "exceptions": "a subprogram throws",
    "thrown_by_a_subprogram": "a subprogram throws",
}


@pytest.mark.parametrize(("source", "compiler"), SOURCES)
def test_every_program_of_the_corpus_does_the_same_and_is_counted(
    source: Path, compiler: build.Compiler, bpffs: Path
) -> None:
    path = build.build(source, compiler).path if source.parent == build.FOLDER else None
    obj = xdpkit.read(path or cases.path(source, compiler))
    with ExitStack() as stack:
        try:
            theirs = stack.enter_context(load_all(obj, pin_root=bpffs / "theirs"))
            ours = stack.enter_context(load_all(obj, pin_root=bpffs / "ours"))
        except (VerifierError, RequirementUnmet):
            assert build.needs(source)
            return
        arrays = {
            found.id: found for found in ours.maps.values() if found.type == MapType.PROG_ARRAY
        }
        for number, (name, program) in enumerate(ours.programs.items()):
            if program.image is None or not can_be_run(program.image):
                continue
            steady = not UNSTEADY & set(analyse(subject_of(obj.programs[name])).helpers)
            for count_bytes, queue in ((False, None), (False, 1), (True, None)):
                with (
                    counters(count_bytes=count_bytes) as found,
                    Copies(ours.programs, arrays) as copies,
                ):
                    terms: Any = {"count_bytes": count_bytes, "queue": queue}
                    if name in REFUSED:
                        with pytest.raises(RequirementUnmet, match=REFUSED[name]):
                            copies.make(program, obj.btf, found, **terms)
                        continue
                    copy = copies.make(program, obj.btf, found, **terms)
                    inputs = list(packets(number, 21))
                    compare(theirs.programs[name], copy, found, inputs, steady=steady)


def raw(code: bytes, *, flags: int = 0) -> Program:
    new = NewProgram(ProgType.XDP, code, "GPL", name="raw", attach_type=AttachType.XDP, flags=flags)
    return Program(bpf.prog_load(new, what="load a program"))


def counted(
    *instructions: Instruction,
    found: Map,
    flags: int = 0,
    count_bytes: bool = False,
    queue: int | None = None,
    stack: Sequence[int] | None = None,
) -> Program:
    """Load a program without type information so that it counts."""
    counting = rewrite.counting(
        Body(encode(instructions, byteorder=sys.byteorder)),
        entries=found.max_entries,
        queue=queue,
        count_bytes=count_bytes,
        frags=bool(flags & ProgFlags.XDP_HAS_FRAGS),
        stack=stack,
    )
    code = bytearray(counting.body.code)
    patch.set_map(code, counting.map_slots, found.fileno())
    return raw(bytes(code), flags=flags)


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.soak)])
def test_random_programs_do_the_same_and_are_counted(count: int) -> None:
    taken = Counter[bool]()

    @settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow])
    @given(
        random_programs.programs(modern=cases.running_kernel() >= (6, 6)),
        st.integers(0, 1000),
        st.sampled_from([(False, 2), (False, None), (True, None), (True, 0)]),
    )
    def check(program: tuple[Instruction, ...], seed: int, kind: tuple[bool, int | None]) -> None:
        try:
            original = assembled(*program)
        except KernelRefused:
            taken[False] += 1
            return
        taken[True] += 1
        count_bytes, queue = kind
        with (
            original,
            counters(count_bytes=count_bytes) as found,
            counted(*program, found=found, count_bytes=count_bytes, queue=queue) as copy,
        ):
            compare(original, copy, found, list(packets(seed, 8)))

    check()
    assert taken[True] > taken[False]


def test_only_the_low_half_of_what_is_returned_counts() -> None:
    number = XdpAction.DROP | 7 << 32
    with counters() as found, counted(asm.ld_imm64(R0, number), asm.exit(), found=found) as copy:
        assert copy.run(bytes(64)).action is XdpAction.DROP
        assert read(found).packets == (0, 1, 0, 0, 0, 0)


def test_what_is_no_action_is_returned_as_it_is() -> None:
    with counters() as found, counted(asm.mov(R0, 1000), asm.exit(), found=found) as copy:
        assert copy.run(bytes(64)).action == 1000
        assert read(found).packets == (0, 0, 0, 0, 0, 1)


@pytest.mark.needs("xdp-frags")
@pytest.mark.parametrize("length", [64, 9000])
def test_bytes_in_fragments_are_counted(length: int) -> None:
    code = asm.mov(R0, XdpAction.PASS), asm.exit()
    flags = ProgFlags.XDP_HAS_FRAGS
    with (
        counters(count_bytes=True) as found,
        counted(*code, found=found, count_bytes=True, flags=flags) as copy,
    ):
        copy.run(bytes(length))
        assert read(found).bytes == (0, 0, length, 0, 0, 0)


def test_the_length_is_that_of_the_frame_as_it_came() -> None:
    code = (
        asm.mov(R6, R1),
        asm.mov(R2, 20),
        asm.call("xdp_adjust_head"),
        asm.mov(R0, XdpAction.TX),
        asm.exit(),
    )
    with (
        counters(count_bytes=True) as found,
        counted(*code, found=found, count_bytes=True) as copy,
    ):
        assert len(copy.run(bytes(100)).packet) == 80
        assert read(found).bytes == (0, 0, 0, 100, 0, 0)


def test_a_stack_in_full_use_leaves_room_to_count() -> None:
    code = (
        asm.store(R10, -512, 1),
        asm.load(R0, R10, -512),
        asm.exit(),
    )
    with counters() as found, counted(*code, found=found, queue=3) as copy:
        copy.run(bytes(64))
        assert Counts.read(found[3]).packets == (0, 1, 0, 0, 0, 0)


def chain(depths: list[int]) -> tuple[Instruction, ...]:
    """Return functions that use so much stack, each of which calls the next one."""
    code: list[Instruction] = []
    for number, depth in enumerate(depths):
        if depth:
            code.append(asm.store(R10, -depth, 1))
        if number + 1 < len(depths):
            code.append(asm.call_subprogram(2))
        code += [asm.mov(R0, XdpAction.PASS), asm.exit()]
    return tuple(code)


def takes(code: tuple[Instruction, ...], **terms: Any) -> bool:
    """Load a program that counts; return whether there was room for its stack."""
    try:
        counted(*code, **terms).close()
    except RequirementUnmet:
        return False
    return True


# "bpf: Fix test verif_scale_strobemeta_subprogs failure due to llvm19".
frames_of_16 = pytest.mark.skipif(
    cases.running_kernel() < (6, 9),
    reason="before Linux 6.9 the verifier rounds frames up to 32 bytes",
)


@frames_of_16
def test_what_the_verifier_would_refuse_for_its_stack_is_refused_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing else is."""
    outcomes = Counter[bool]()
    sizes = (0, 8, 16, 24, 240, 256, 480, 496, 504, 512)
    chains = [[first, *others] for first in sizes for others in ([], [0], [16], [256], [240, 240])]
    chains += [[0, 512], [8, 496], [0, 0, 496], [16, 248, 232]]
    with counters(count_bytes=True) as with_bytes, counters() as without:
        for depths, queue, count_bytes in itertools.product(chains, (None, 0), (False, True)):
            code = chain(depths)
            try:
                assembled(*code).close()
            except KernelRefused:
                continue
            into = with_bytes if count_bytes else without
            terms: Any = {"found": into, "queue": queue, "count_bytes": count_bytes}
            fits = takes(code, **terms)
            outcomes[fits] += 1
            if not fits:
                with monkeypatch.context() as patched:
                    patched.setattr("xdpkit.rewrite.count.check_room", lambda *_, **__: None)
                    with pytest.raises(KernelRefused):
                        counted(*code, **terms)
    assert min(outcomes[True], outcomes[False]) > 10


def test_the_verifiers_log_says_how_deep_a_place_chosen_at_run_time_reaches() -> None:
    code = (
        *(asm.store(R10, -place, 0) for place in range(8, 257, 8)),
        asm.call("get_prandom_u32"),
        asm.alu(AluOp.AND, R0, 0xFF),
        asm.mov(R2, R10),
        asm.alu(AluOp.ADD, R2, -256),
        asm.alu(AluOp.ADD, R2, R0),
        asm.load(R0, R2, size=1),
        asm.exit(),
    )
    new = NewProgram(ProgType.XDP, encode(code, byteorder=sys.byteorder), "GPL", name="chosen")
    log = LogBuffer(1 << 20)
    bpf.prog_load(new, what="load a program", log=log, log_level=4).close()
    stack = rewrite.stack_in_log(log.text())
    assert stack == (256,)
    with counters(count_bytes=True) as found:
        with pytest.raises(RequirementUnmet, match="the program may use 512 of 512"):
            counted(*code, found=found, count_bytes=True)
        with counted(*code, found=found, count_bytes=True, stack=stack) as copy:
            copy.run(bytes(64))
            assert read(found).bytes == (64, 0, 0, 0, 0, 0)


def test_an_epilogue_is_repeated_where_jumps_do_not_reach() -> None:
    code: list[Instruction] = [
        asm.load(R2, R1, 0, size=4),
        asm.load(R3, R1, 4, size=4),
        asm.mov(R4, R2),
        asm.alu(AluOp.ADD, R4, 1),
        asm.mov(R0, 4),
        asm.branch(JmpOp.JGT, R4, R3, 2),
        asm.load(R6, R2, 0, size=1),
        asm.jump(1),
        asm.exit(),
    ]
    for number in range(3):
        code += [asm.branch(JmpOp.JNE, R6, number, 2), asm.mov(R0, number), asm.exit()]
        code += [asm.mov(R7, 0)] * 17_000
    code += [asm.mov(R0, 9), asm.exit()]
    with (
        assembled(*code) as original,
        counters() as found,
        counted(*code, found=found, queue=0) as copy,
    ):
        compare(original, copy, found, [bytes([first]) * 64 for first in range(6)])


@pytest.mark.skipif(throw_id() is None, reason="Linux 6.7 brought bpf_throw()")
def test_what_is_thrown_to_a_callback_is_counted_there(bpffs: Path) -> None:
    source = build.FOLDER / "beyond" / "exception_callback.c"
    compiler = next(each for each in build.compilers() if each.family == "clang")
    obj = xdpkit.read(build.build(source, compiler, flags=(f"-I{build.FOLDER}",)).path)
    with (
        xdpkit.load(obj.programs["exception_callback"], pin_root=bpffs) as program,
        counters() as found,
    ):
        assert program.image is not None
        assert obj.btf is not None
        body = body_of(program.image)
        callback = rewrite.exception_callback(body, obj.btf)
        assert callback is not None
        terms: Any = {"entries": ENTRIES, "throw": throw_id(), "exception_callback": callback}
        counting = rewrite.counting(body, queue=2, **terms)
        with load_counting(program.image, counting, found) as copy:
            assert copy.run(bytes(64)).action is XdpAction.TX
            assert Counts.read(found[2]).packets == (0, 0, 0, 1, 0, 0)
        with pytest.raises(RequirementUnmet, match="its exception callback can learn neither"):
            rewrite.counting(body, **terms)


HEADER = """
#define SEC(name) __attribute__((section(name), used))
#define noinline __attribute__((noinline))
struct xdp_md { unsigned int data, data_end, data_meta, ingress_ifindex, rx_queue_index; };
static long (*tail_call)(void *ctx, void *map, unsigned int slot) = (void *)12;
#define opaque(x) asm volatile("" : "+r"(x))
static inline int input(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;

	return data + 1 > (unsigned char *)(long)ctx->data_end ? 0 : *data;
}
struct {
	int (*type)[3];
	int (*max_entries)[4];
	unsigned int *key;
	int (*values[])(struct xdp_md *);
} jumps SEC(".maps");
"""


def compiled(folder: Path, text: str) -> xdpkit.Object:
    """Return the object of a source; skip the test where no compiler takes it."""
    source = folder / "source.c"
    source.write_text(HEADER + text)
    for compiler in build.compilers():
        if compiler.family != "gcc-bpf":
            return xdpkit.read(build.build(source, compiler).path)
    pytest.skip("no BPF compiler: apt-get install clang")


BOTH_WAYS = """
SEC("xdp") int sends(struct xdp_md *ctx) { return 3; }
SEC("xdp") int on(struct xdp_md *ctx) { tail_call(ctx, &jumps, 0); return 0; }

static noinline int jump(struct xdp_md *ctx, unsigned int slot)
{
	int result = 4;

	tail_call(ctx, &jumps, slot);
	opaque(result);
	return result;
}

SEC("xdp") int both(struct xdp_md *ctx)
{
	int way = input(ctx);

	if (way < 2)
		tail_call(ctx, &jumps, way);
	return jump(ctx, way - 2) == 3 ? 1 : 2;
}
"""


def test_a_leaf_that_is_reached_both_ways_counts_one_way(tmp_path: Path, bpffs: Path) -> None:
    obj = compiled(tmp_path, BOTH_WAYS)
    with load_all(obj, pin_root=bpffs) as loaded:
        jumps, both = loaded.maps["jumps"], loaded.programs["both"]
        jumps[0], jumps[1] = loaded.programs["sends"], loaded.programs["on"]
        with counters() as found, Copies(loaded.programs, {jumps.id: jumps}) as copies:
            copy = copies.make(both, obj.btf, found, count_bytes=False, queue=0)
            inputs = [bytes([way]) + bytes(63) for way in (0, 0, 1, 2, 2, 2, 3, 4, 4)]
            compare(both, copy, found, inputs)
            assert read(found).packets == (0, 4, 2, 3, 0, 0)


ABOVE_A_TAIL_CALL = """
static noinline int jump(struct xdp_md *ctx)
{
	int result = 4;

	tail_call(ctx, &jumps, 0);
	opaque(result);
	return result;
}

SEC("xdp") int deep(struct xdp_md *ctx)
{
	char room[DEPTH], *bottom = room;

	opaque(bottom);
	*bottom = 1;
	return jump(ctx) + *bottom;
}
"""


@frames_of_16
@pytest.mark.parametrize(("depth", "fits"), [(232, True), (240, False)])
def test_the_stack_above_a_tail_call_of_a_subprogram_has_its_limit(
    depth: int, fits: bool, tmp_path: Path, bpffs: Path
) -> None:
    obj = compiled(tmp_path, ABOVE_A_TAIL_CALL.replace("DEPTH", str(depth)))
    with (
        load_all(obj, pin_root=bpffs) as loaded,
        counters() as found,
        Copies(loaded.programs, {loaded.maps["jumps"].id: loaded.maps["jumps"]}) as copies,
    ):
        deep = loaded.programs["deep"]
        copies.make(deep, obj.btf, found, count_bytes=False, queue=0)
        if fits:
            copies.make(deep, obj.btf, found, count_bytes=False, queue=None)
            return
        with pytest.raises(RequirementUnmet) as refused:
            copies.make(deep, obj.btf, found, count_bytes=False, queue=None)
        assert str(refused.value) == (
            "count what deep returns: there would be 256 bytes of stack above a subprogram that"
            " tail-calls, and less than 256 are allowed"
        )


QUEUES = 16


@pytest.fixture
def queues() -> Iterator[tuple[str, int]]:
    """An interface with 16 RX queues: its namespace and its index."""
    with namespace() as netns, rtnetlink(netns) as connection:
        peer = {"ifname": "peer", "num_rx_queues": QUEUES, "num_tx_queues": QUEUES}
        connection.link(
            "add",
            ifname="many",
            kind="veth",
            num_rx_queues=QUEUES,
            num_tx_queues=QUEUES,
            peer=peer,
        )
        index = resolve("many", netns=netns).index
        connection.link("set", index=index, state="up")
        # Queues are there for test runs once a program is.
        with returning(XdpAction.PASS) as program:
            connection.link("set", index=index, xdp_fd=program.fileno())
        yield netns, index


def on_queue(netns: str, index: int, program: Program, queue: int) -> int:
    """Return what a program returns for a packet of 64 bytes of a queue."""
    with entered(netns):
        result = program.run(
            bytes(64), context=XdpContext(ingress_ifindex=index, rx_queue_index=queue)
        )
    return int(result.action or 0)


@pytest.mark.needs("test-run-context")
def test_packets_are_counted_by_their_queue_the_last_entry_has_the_rest(
    queues: tuple[str, int],
) -> None:
    with (
        counters(count_bytes=True) as found,
        counted(asm.mov(R0, 3), asm.exit(), found=found, count_bytes=True) as copy,
    ):
        for queue in range(QUEUES):
            for _ in range(queue):
                assert on_queue(*queues, copy, queue) == XdpAction.TX
        per_entry = [Counts.read(found[entry]) for entry in range(ENTRIES)]
        assert [counts.packets[3] for counts in per_entry] == [0, 1, 2, sum(range(3, QUEUES))]
        assert all(
            counts.bytes == tuple(64 * number for number in counts.packets) for counts in per_entry
        )


class Dispatch:
    """A root program with its array and the map of what it has no program for."""

    def __init__(
        self,
        served: Mapping[int, int],
        default: int | None,
        *,
        entries: int = QUEUES,
        flags: int = 0,
    ) -> None:
        frags = bool(flags & ProgFlags.XDP_HAS_FRAGS)
        root = rewrite.root(served, default, entries=entries, frags=frags)
        with ExitStack() as stack:
            self.array = stack.enter_context(
                Map.create(MapType.PROG_ARRAY, key_size=4, value_size=4, max_entries=1100)
            )
            self.missing = stack.enter_context(
                Map.create(
                    MapType.PERCPU_ARRAY,
                    key_size=4,
                    value_size=rewrite.NO_PROGRAM_SIZE,
                    max_entries=entries,
                )
            )
            code = bytearray(root.body.code)
            patch.set_map(code, root.array_slots, self.array.fileno())
            patch.set_map(code, root.counter_slots, self.missing.fileno())
            self.program = stack.enter_context(raw(bytes(code), flags=flags))
            self._owned = stack.pop_all()

    def not_served(self) -> list[NoProgram]:
        return [NoProgram.read(value) for value in self.missing.values()]

    def __enter__(self) -> Dispatch:
        return self

    def __exit__(self, *error: object) -> None:
        self._owned.close()


def members(stack: ExitStack, array: Map, slots: Sequence[int]) -> None:
    """Put programs that return 100 more than the slot into an array."""
    for slot in slots:
        array[slot] = stack.enter_context(returning(100 + slot))


@pytest.mark.needs("test-run-context")
def test_each_queue_runs_its_program_else_the_global_one_else_none(
    queues: tuple[str, int],
) -> None:
    served = {0: 7, 1: 1, 2: 1, 3: 1, 6: 2, 9: 3, 10: 4, 15: 5}
    with Dispatch(served, 9) as dispatch, ExitStack() as stack:
        root = dispatch.program
        members(stack, dispatch.array, sorted({*served.values(), 9}))

        def effective() -> list[int]:
            return [on_queue(*queues, root, queue) for queue in range(QUEUES)]

        assert effective() == [100 + served.get(queue, 9) for queue in range(QUEUES)]
        del dispatch.array[1]
        expected = {queue: slot for queue, slot in served.items() if slot != 1}
        assert effective() == [100 + expected.get(queue, 9) for queue in range(QUEUES)]
        assert dispatch.not_served() == [NoProgram(0, 0)] * QUEUES
        del dispatch.array[9]
        assert effective() == [
            100 + expected[queue] if queue in expected else XdpAction.PASS
            for queue in range(QUEUES)
        ]
        assert dispatch.not_served() == [
            NoProgram(0, 0) if queue in expected else NoProgram(1, 64) for queue in range(QUEUES)
        ]


@pytest.mark.needs("test-run-context")
def test_without_a_global_program_the_others_queues_pass_and_are_counted(
    queues: tuple[str, int],
) -> None:
    with Dispatch({5: 0}, None, entries=3) as dispatch, ExitStack() as stack:
        members(stack, dispatch.array, [0])
        found = [on_queue(*queues, dispatch.program, queue) for queue in range(QUEUES)]
        assert found == [100 if queue == 5 else XdpAction.PASS for queue in range(QUEUES)]
        assert dispatch.not_served() == [
            NoProgram(1, 64),
            NoProgram(1, 64),
            NoProgram(13, 13 * 64),
        ]


@pytest.mark.needs("test-run-context")
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(0, QUEUES - 1), st.integers(0, 5)),
    st.one_of(st.none(), st.integers(0, 5)),
    st.sets(st.integers(0, 5)),
)
def test_any_assignment_of_queues_is_followed(
    queues: tuple[str, int], served: dict[int, int], default: int | None, filled: set[int]
) -> None:
    with Dispatch(served, default) as dispatch, ExitStack() as stack:
        members(stack, dispatch.array, sorted(filled))
        for queue in range(QUEUES):
            slots = [slot for slot in (served.get(queue), default) if slot in filled]
            wanted = 100 + slots[0] if slots and slots[0] is not None else XdpAction.PASS
            assert on_queue(*queues, dispatch.program, queue) == wanted


@pytest.mark.parametrize("count", [1, 8, 64, 256, 1023])
def test_a_root_has_room_for_1023_queues_and_the_global_program(count: int) -> None:
    with (
        Dispatch({queue: queue for queue in range(count)}, count, entries=count) as dispatch,
        returning(XdpAction.TX) as only,
    ):
        dispatch.array[0] = only
        assert dispatch.program.run(bytes(64)).action is XdpAction.TX


@pytest.mark.needs("xdp-frags")
def test_a_root_for_packets_in_fragments_counts_all_their_bytes() -> None:
    with Dispatch({1: 1}, None, flags=ProgFlags.XDP_HAS_FRAGS) as dispatch:
        assert dispatch.program.run(bytes(9000)).action is XdpAction.PASS
        assert dispatch.not_served()[0] == NoProgram(1, 9000)
