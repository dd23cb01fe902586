# SPDX-License-Identifier: Apache-2.0
"""Programs read the fields that xdpkit adds to their context, in a kernel that has none of them.

Each program of ``c/context.c`` writes down what it read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import xdpkit
from tests.corpus import build
from tests.kernel.compiled import returning
from tests.kernel.net import make_veth
from tests.kernel.process import Done, xdpkit_command
from xdpkit import rewrite
from xdpkit.cli.pcap import Packet, PcapWriter
from xdpkit.compiler import INCLUDE_DIR
from xdpkit.errors import RequirementUnmet, UsageError, VerifierError
from xdpkit.interfaces import resolve
from xdpkit.kernel import (
    Context,
    DevmapValue,
    Given,
    Image,
    Map,
    Program,
    XdpContext,
    load,
    load_all,
    load_image,
    patch,
)
from xdpkit.kernel.image import MapReference
from xdpkit.kernel.ownports import own_port_maps
from xdpkit.kernel.progload import load_program
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, MapType, ProgFlags, XdpAction

FOLDER = Path(__file__).parent / "c"
PACKET = bytes(range(100))
COOKIE = 0x0123_4567_89AB_CDEF
NO_PORT = 0xFFFF_FFFF
PORT = 7

needs = pytest.mark.needs
# No feature of its own: bpf_loop() came with Linux 5.17, shortly before this.
needs_loop = needs("xdp-frags")

COMPILERS = [pytest.param(compiler, id=compiler.name) for compiler in build.compilers()]


def read(name: str, compiler: build.Compiler | None = None) -> xdpkit.Object:
    """Return the object of a source, by the newest clang unless another compiler is wanted."""
    compiler = compiler or max(build.compilers(), key=lambda each: each.version, default=None)
    if compiler is None:
        pytest.skip("no BPF compiler: apt-get install clang")
    digest = hashlib.sha256((INCLUDE_DIR / "xdpkit.h").read_bytes()).hexdigest()
    # What is in the cache was made with the header as it was then.
    flags = f"-I{INCLUDE_DIR}", f"-DHEADER={digest[:16]}"
    return xdpkit.read(build.build(FOLDER / f"{name}.c", compiler, flags=flags).path)


@pytest.fixture(scope="module")
def obj() -> xdpkit.Object:
    return read("context")


def constant(obj: xdpkit.Object, name: str) -> Program:
    return load(obj.programs[name], context=Context(PORT, cookie=COOKIE))


def seen(program: Program) -> int:
    """Return what a program wrote down."""
    value: Mapping[str, int] = program.maps[".bss"][0]
    return value["seen"]


def clear(program: Program) -> None:
    program.maps[".bss"][0] = {"seen": 0}


def after(program: Program, packet: bytes = PACKET, *, ifindex: int = 0) -> int:
    """Run a program over a packet and return what it wrote down."""
    context = XdpContext(ingress_ifindex=ifindex) if ifindex else None
    result = program.run(packet, context=context)
    assert result.action is XdpAction.PASS
    return seen(program)


def table(ports: Mapping[int, int]) -> Map:
    """Make a map of ports by the index of the interface."""
    found = Map.create(
        MapType.HASH, key_size=4, value_size=4, max_entries=8, name="xdpkit_port_numbers"
    )
    for ifindex, port in ports.items():
        put(found, ifindex, port)
    return found


def put(numbers: Map, ifindex: int, port: int) -> None:
    numbers[struct.pack("=I", ifindex)] = struct.pack("=I", port)


def port_maps(
    resources: ExitStack, ports: Mapping[int, int] = MappingProxyType({})
) -> dict[str, Map]:
    """Make the maps of a port table, by the names that the header gives them."""
    kinds = {
        "xdpkit_ports": MapType.DEVMAP,
        "xdpkit_port_counts": MapType.PERCPU_ARRAY,
        "xdpkit_set_guests": MapType.DEVMAP,
    }
    made = {
        name: Map.create(kind, key_size=4, value_size=8, max_entries=16)
        for name, kind in kinds.items()
    }
    made["xdpkit_port_numbers"] = table(ports)
    for each in made.values():
        resources.enter_context(each)
    return made


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("port_index", PORT),
        ("cookie", COOKIE),
        ("frame_len", len(PACKET)),
        ("frame_len_later", len(PACKET)),
        ("all", (COOKIE << 32 | len(PACKET) << 8 | PORT) % (1 << 64)),
        ("port_in_static", 2 << 32 | PORT),
        ("length_in_static", 3 << 32 | len(PACKET)),
        ("port_in_global", PORT),
        pytest.param("port_in_callback", PORT, marks=needs_loop),
        ("leaf", (COOKIE << 32 | PORT) % (1 << 64)),
        ("tail_call", (COOKIE << 32 | PORT) % (1 << 64)),
    ],
)
def test_a_program_reads_what_it_was_given(name: str, expected: int, obj: xdpkit.Object) -> None:
    with constant(obj, name) as program:
        assert after(program) == expected


@pytest.mark.parametrize("compiler", COMPILERS)
def test_whatever_compiled_it_a_program_reads_what_it_was_given(compiler: build.Compiler) -> None:
    obj = read("context", compiler)
    for name, expected in {
        "all": (COOKIE << 32 | len(PACKET) << 8 | PORT) % (1 << 64),
        "port_in_static": 2 << 32 | PORT,
        "length_in_static": 3 << 32 | len(PACKET),
        "frame_len_later": len(PACKET),
    }.items():
        with constant(obj, name) as program:
            assert after(program) == expected


def test_a_part_of_a_field_is_read_alone(obj: xdpkit.Object) -> None:
    raw = COOKIE.to_bytes(8, "little")
    (half,) = struct.unpack_from("<H", raw, 4)
    with constant(obj, "narrow") as program:
        assert after(program) == raw[3] << 24 | half << 8 | raw[6]


@needs("xdp-frags")
@pytest.mark.parametrize("length", [14, 1514, 3000, 9000])
def test_the_length_of_a_frame_is_that_of_all_its_fragments(
    length: int, obj: xdpkit.Object
) -> None:
    with constant(obj, "frame_len_frags") as program:
        assert after(program, bytes(length)) == length


def test_without_a_context_there_is_no_cookie(obj: xdpkit.Object) -> None:
    with load(obj.programs["cookie"]) as program:
        assert after(program) == 0
        assert program.context == Given(("cookie",))


def test_a_program_that_reads_no_field_is_loaded_as_it_is(obj: xdpkit.Object) -> None:
    with (
        constant(obj, "none") as program,
        load(obj.programs["none"]) as plain,
    ):
        assert program.tag == plain.tag
        assert (program.context, plain.context) == (None, None)
        assert program.image is not None
        assert program.image.context is None


# Ports that are looked up


@pytest.fixture
def interfaces(netns: str) -> Iterator[list[int]]:
    """The indexes of four interfaces; the thread is in their namespace."""
    veths = [make_veth(netns), make_veth(netns)]
    with entered(netns):
        yield [resolve(name).index for each in veths for name in (each.name, each.peer)]


@needs("test-run-context")
@pytest.mark.parametrize("name", ["port_index", "port_in_static", "tail_call"])
def test_each_packet_has_the_port_of_its_interface(
    name: str, interfaces: list[int], obj: xdpkit.Object
) -> None:
    ports = {index: 3 * number for number, index in enumerate(interfaces[:-1])}
    with (
        table(ports) as by_interface,
        load(obj.programs[name], context=Context(port_numbers=by_interface)) as program,
    ):
        for index in interfaces * 2:
            assert after(program, ifindex=index) & NO_PORT == ports.get(index, NO_PORT)
        # The next packet meets what changes in the map.
        put(by_interface, interfaces[-1], 5)
        assert after(program, ifindex=interfaces[-1]) & NO_PORT == 5


def test_a_part_of_what_is_found_out_is_read_alone(obj: xdpkit.Object) -> None:
    with (
        table({1: 0xABCD}) as by_interface,
        load(obj.programs["narrow_kept"], context=Context(port_numbers=by_interface)) as program,
    ):
        assert after(program, bytes(0x123)) == 0xAB << 32 | 0xCD << 16 | 0x123


@needs("test-run-context")
def test_all_fields_of_a_packet_are_right_together(
    interfaces: list[int], obj: xdpkit.Object
) -> None:
    context = {"cookie": COOKIE}
    with (
        table({interfaces[0]: PORT}) as by_interface,
        load(obj.programs["all"], context=Context(port_numbers=by_interface, **context)) as program,
    ):
        for length in (14, 60, 200):
            expected = (COOKIE << 32 | length << 8 | PORT) % (1 << 64)
            assert after(program, bytes(length), ifindex=interfaces[0]) == expected


@needs("live-frames", "bpf-link-xdp")
def test_a_frame_that_leaves_has_the_port_by_which_it_does(
    interfaces: list[int], obj: xdpkit.Object
) -> None:
    with ExitStack() as resources:
        by_interface = resources.enter_context(table({interfaces[0]: 1, interfaces[1]: PORT}))
        egress = resources.enter_context(
            load(obj.programs["port_of_egress"], context=Context(port_numbers=by_interface))
        )
        maps = port_maps(resources)
        maps["xdpkit_ports"][2] = DevmapValue(interfaces[1], egress)
        sender = resources.enter_context(
            load(obj.programs["by_table"], maps=maps, context=Context(2))
        )
        # A veth takes frames only if its peer has a program.
        peers = resources.enter_context(returning(XdpAction.PASS))
        resources.enter_context(bpf.link_create(peers.fileno(), interfaces[0], AttachType.XDP))
        sender.run(PACKET, live=True, context=XdpContext(ingress_ifindex=interfaces[2]))
        assert seen(egress) == PORT


def test_the_program_holds_the_map_in_which_it_looks_its_port_up(obj: xdpkit.Object) -> None:
    with table({1: PORT}) as by_interface:
        number = by_interface.id
        program = load(obj.programs["port_index"], context=Context(port_numbers=by_interface))
    with program:
        assert after(program) == PORT
        assert program.context == Given(("port_index",), numbers=number)
        assert program.image is not None
        assert MapReference(number, "xdpkit_port_numbers") in program.image.maps
        assert program.maps["xdpkit_port_numbers"].id == number


def test_a_map_of_ports_that_the_program_uses_itself_is_one_map(obj: xdpkit.Object) -> None:
    with ExitStack() as resources:
        maps = port_maps(resources, {1: PORT})
        by_interface = maps.pop("xdpkit_port_numbers")
        program = resources.enter_context(
            load(obj.programs["by_table"], maps=maps, context=Context(port_numbers=by_interface))
        )
        assert program.run(PACKET).action is XdpAction.ABORTED
        assert seen(program) == PORT << 32 | PORT
        assert program.image is not None
        assert [each.id for each in program.image.maps].count(by_interface.id) == 1
        assert list(program.info().map_ids).count(by_interface.id) == 1


def test_programs_that_are_loaded_together_read_the_same(obj: xdpkit.Object) -> None:
    names = ["port_index", "cookie", "none"]
    with ExitStack() as resources:
        maps = port_maps(resources, {1: PORT})
        by_interface = maps.pop("xdpkit_port_numbers")
        context = Context(port_numbers=by_interface, cookie=COOKIE)
        loaded = resources.enter_context(load_all(obj, programs=names, maps=maps, context=context))
        programs = loaded.programs
        assert after(programs["port_index"]) == PORT
        assert after(programs["cookie"]) == COOKIE
        assert [programs[name].context for name in names] == [
            Given(("port_index",), numbers=by_interface.id),
            Given(("cookie",), cookie=COOKIE),
            None,
        ]


# Where the analysis does not know how much stack is used


@pytest.fixture(scope="module")
def deep() -> xdpkit.Object:
    return read("context_deep")


@pytest.mark.parametrize("is_constant", [True, False])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("handed_to_a_loop", 6),
        ("stored_at_an_index", 5 << 8 | 9),
        ("stored_where_the_field_says", 7 << 8 | 8),
        ("in_a_subprogram", 7),
        ("beside_a_kernel_function", 0),
    ],
)
def test_a_field_is_kept_beside_a_stack_that_only_the_verifier_knows(
    name: str, expected: int, is_constant: bool, deep: xdpkit.Object
) -> None:
    with table({1: PORT}) as by_interface:
        context = Context(PORT) if is_constant else Context(port_numbers=by_interface)
        with load(deep.programs[name], context=context) as program:
            assert after(program) == expected << 32 | len(PACKET)


def test_a_stack_that_is_full_is_full_whoever_looks_at_it(deep: xdpkit.Object) -> None:
    with pytest.raises(RequirementUnmet) as refused:
        constant(deep, "full")
    assert refused.value.cause == (
        "its chain of calls would use 528 bytes of stack, and 512 is the most"
    )


def test_the_verifier_is_asked_only_where_the_analysis_refuses(
    obj: xdpkit.Object, deep: xdpkit.Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def asking(new: NewProgram, *, what: str, **terms: Any) -> tuple[Fd, str]:
        asked.append(what)
        return load_program(new, what=what, **terms)

    monkeypatch.setattr("xdpkit.kernel.providing.load_program", asking)
    with constant(obj, "length_in_static"):
        assert asked == []
    with constant(deep, "handed_to_a_loop"):
        assert asked == ["learn how much stack handed_to_a_loop uses"]


def test_a_program_that_the_verifier_refuses_anyway_is_refused_for_its_stack(
    deep: xdpkit.Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(new: NewProgram, **terms: object) -> tuple[Fd, str]:
        raise VerifierError("learn it", errno=13, cause="no", log="no")

    monkeypatch.setattr("xdpkit.kernel.providing.load_program", refusing)
    with pytest.raises(RequirementUnmet, match="8 more bytes of stack are needed"):
        constant(deep, "handed_to_a_loop")


# Loaded again


@pytest.mark.parametrize(
    "name",
    ["all", "length_in_static", pytest.param("port_in_callback", marks=needs_loop)],
)
def test_a_program_that_is_loaded_again_reads_the_same(name: str, obj: xdpkit.Object) -> None:
    with constant(obj, name) as program:
        expected = after(program, bytes(60))
        assert program.image is not None
        image = Image.decode(program.image.encode())
        assert image == program.image
        with load_image(image) as again:
            assert (again.tag, again.context) == (program.tag, program.context)
            clear(program)
            again.run(bytes(60))
            assert seen(program) == expected


@pytest.mark.parametrize("name", ["all", "length_in_static", "frame_len_later", "port_index"])
def test_a_copy_that_counts_reads_the_same(name: str, obj: xdpkit.Object) -> None:
    with ExitStack() as resources:
        by_interface = resources.enter_context(table({1: PORT}))
        program = resources.enter_context(
            load(obj.programs[name], context=Context(port_numbers=by_interface, cookie=COOKIE))
        )
        counts = resources.enter_context(
            Map.create(
                MapType.PERCPU_ARRAY,
                key_size=4,
                value_size=rewrite.value_size(count_bytes=True),
                max_entries=1,
            )
        )
        copy = resources.enter_context(counting_copy(program, counts))
        assert copy.context == program.context
        for length in (34, 60, 1514):
            expected = after(program, bytes(length))
            clear(program)
            assert copy.run(bytes(length)).action is XdpAction.PASS
            assert seen(program) == expected
        counted = rewrite.Counts.read(counts[0])
        assert counted.packets == (0, 0, 3, 0, 0, 0)


def counting_copy(program: Program, counts: Map) -> Program:
    image = program.image
    assert image is not None
    counting = rewrite.counting(
        rewrite.Body(image.code, image.func_info, image.line_info),
        entries=1,
        count_bytes=True,
        frags=bool(image.flags & ProgFlags.XDP_HAS_FRAGS),
    )
    code = bytearray(counting.body.code)
    patch.set_map(code, counting.map_slots, counts.id)
    copy = replace(
        image,
        code=bytes(code),
        func_info=counting.body.func_info,
        line_info=counting.body.line_info,
        maps=(*image.maps, MapReference(counts.id, "counts")),
    )
    return load_image(copy, original=image)


# Refused


@pytest.mark.parametrize(
    ("source", "name", "cause"),
    [
        (
            "context",
            "length_in_callback",
            "read_length reads frame_len (context.c:124)",
        ),
        (
            "context_refused",
            "writes",
            "it writes port_index (context_refused.c:7)",
        ),
        (
            "context_refused",
            "spans",
            "it reads 8 bytes at port_index (context_refused.c:13)",
        ),
        (
            "context_refused",
            "takes_an_address",
            "it takes the address of port_index (context_refused.c:25)",
        ),
        (
            "context_later",
            "reads_what_is_to_come",
            "it reads phase_of_the_moon (context_later.c:20)",
        ),
    ],
)
def test_what_cannot_be_provided_is_refused_with_its_place(
    source: str, name: str, cause: str
) -> None:
    with pytest.raises(RequirementUnmet) as refused:
        constant(read(source), name)
    assert refused.value.what == f"provide the extended context of {name}"
    assert refused.value.cause.startswith(cause)


def test_a_program_that_reads_its_port_and_has_none_is_refused(obj: xdpkit.Object) -> None:
    with pytest.raises(RequirementUnmet) as refused:
        load(obj.programs["port_index"])
    assert refused.value.cause.startswith("it reads port_index (context.c:17)")
    assert refused.value.remedy == (
        "attach it to an interface that is a port (xdpkit ports); to load it elsewhere, say which"
        " port it is to be: port_index, in 'xdpkit run' --port-index"
    )


def test_a_port_is_no_remedy_for_what_else_is_wrong() -> None:
    with pytest.raises(RequirementUnmet) as refused:
        load(read("context_refused").programs["writes"])
    assert refused.value.cause.startswith("it writes port_index")
    assert refused.value.remedy is None


def test_a_look_up_in_a_callback_is_refused(obj: xdpkit.Object) -> None:
    with table({}) as by_interface, pytest.raises(RequirementUnmet) as refused:
        load(obj.programs["port_in_callback"], context=Context(port_numbers=by_interface))
    assert refused.value.cause.startswith("read_port reads port_index (context.c:110)")


def test_a_map_in_which_no_port_can_be_looked_up_is_refused(obj: xdpkit.Object) -> None:
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1, name="wrong") as wrong,
        pytest.raises(UsageError) as refused,
    ):
        load(obj.programs["port_index"], context=Context(port_numbers=wrong))
    assert refused.value.cause == (
        f"map wrong (id {wrong.id}) is no hash with keys and values of 4 bytes, in which ports can"
        " be looked up"
    )


def test_a_map_without_a_name_is_named_by_its_id(obj: xdpkit.Object) -> None:
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1) as wrong,
        pytest.raises(UsageError) as refused,
    ):
        load(obj.programs["port_index"], context=Context(port_numbers=wrong))
    assert refused.value.cause.startswith(f"map {wrong.id} is no hash")


@pytest.mark.parametrize("context", [5, 0, "lan", {"port_index": 3}])
def test_what_is_no_context_is_refused(context: object, obj: xdpkit.Object) -> None:
    terms: dict[str, Any] = {"context": context}
    for loading in (
        lambda: load(obj.programs["none"], **terms),
        lambda: load_all(obj, programs=["none"], **terms),
    ):
        with pytest.raises(UsageError) as refused:
            loading()
        assert refused.value.cause == f"context= is a Context, and not {context!r}"


def test_two_maps_of_ports_are_one_too_many(obj: xdpkit.Object) -> None:
    with ExitStack() as resources:
        maps = port_maps(resources)
        other = resources.enter_context(table({}))
        with pytest.raises(UsageError, match="is where it is to look its port up"):
            load(obj.programs["by_table"], maps=maps, context=Context(port_numbers=other))


def test_the_look_up_map_may_be_one_map_too_many(
    obj: xdpkit.Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xdpkit.kernel.providing._MAX_MAPS", 1)
    with table({}) as by_interface, pytest.raises(RequirementUnmet, match="is one more"):
        load(obj.programs["port_index"], context=Context(port_numbers=by_interface))


def test_a_program_can_have_empty_maps_in_place_of_a_port_tables(obj: xdpkit.Object) -> None:
    spec = obj.programs["by_table"]
    with own_port_maps(obj.programs["none"]) as none:
        assert none == {}
    with own_port_maps(spec) as maps, load(spec, maps=maps, context=Context(9)) as program:
        assert maps.keys() == {
            "xdpkit_ports",
            "xdpkit_port_numbers",
            "xdpkit_port_counts",
            "xdpkit_set_guests",
        }
        assert {name: each.id for name, each in program.maps.items() if name in maps} == {
            name: each.id for name, each in maps.items()
        }
        program.run(PACKET)
        assert seen(program) == NO_PORT << 32 | 9
        with own_port_maps(spec, without=["xdpkit_ports"]) as others:
            assert others.keys() == maps.keys() - {"xdpkit_ports"}


def test_the_maps_of_a_port_table_are_not_made_for_a_program(obj: xdpkit.Object) -> None:
    with pytest.raises(RequirementUnmet, match="the program was given no port table"):
        load(obj.programs["by_table"], context=Context(PORT))


# The command


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    with open(tmp_path / "capture.pcap", "wb") as stream:
        PcapWriter(stream).write(Packet(PACKET, 0, len(PACKET)))
    return tmp_path / "capture.pcap"


def run(obj: xdpkit.Object, name: str, capture: Path, *arguments: object) -> Done:
    return xdpkit_command("run", obj.path, "--program", name, "--input", capture, *arguments)


def test_a_run_has_the_port_and_the_cookie_that_are_asked_for(
    obj: xdpkit.Object, capture: Path
) -> None:
    done = run(obj, "all", capture, "--port-index", PORT, "--cookie", 5, "-j").json
    assert done["context"] == {
        "fields": ["port_index", "frame_len", "cookie"],
        "port_index": PORT,
        "cookie": 5,
    }
    assert done["empty_port_maps"] == []


@needs("redirect-broadcast")
@pytest.mark.parametrize(("port", "action"), [(9, "XDP_REDIRECT"), (8, "XDP_ABORTED")])
def test_a_run_of_a_program_with_a_port_table_has_an_empty_one(
    port: int, action: str, obj: xdpkit.Object, capture: Path
) -> None:
    done = run(obj, "by_table", capture, "--port-index", port)
    assert done.status == 0
    assert action in done.output
    assert done.messages == (
        "xdpkit: no port has an interface in this run: it has empty xdpkit_port_numbers,"
        " xdpkit_set_guests, xdpkit_ports, xdpkit_port_counts\n"
    )


def test_what_a_program_does_not_read_is_said(obj: xdpkit.Object, capture: Path) -> None:
    done = run(obj, "frame_len", capture, "--port-index", PORT, "--cookie", 5)
    assert done.status == 0
    assert done.messages == (
        "xdpkit: frame_len does not read port_index\nxdpkit: frame_len does not read cookie\n"
    )


def test_a_run_of_a_program_that_reads_its_port_wants_one(
    obj: xdpkit.Object, capture: Path
) -> None:
    done = run(obj, "port_index", capture)
    assert done.status == RequirementUnmet.exit_code
    assert "--port-index" in done.messages
