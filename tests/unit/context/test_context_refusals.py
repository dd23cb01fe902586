# SPDX-License-Identifier: Apache-2.0
"""What cannot be provided, and what is said then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.context.programs import Source, compiled, machine_code
from xdpkit.analysis import Reference
from xdpkit.context import Provided, provide
from xdpkit.errors import ObjectFormatError, RequirementUnmet, UsageError
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import AluOp, Atomic, JmpOp, Register
from xdpkit.obj.spec import RelocationKind
from xdpkit.rewrite import Body
from xdpkit.uapi.bpf import PseudoSrc

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register
PORT, LENGTH, COOKIE = 1024, 1028, 1032
EXIT = asm.exit()
READ_LENGTH = asm.load(R0, R1, LENGTH, size=4)


def provided(*sources: Source, context: str = "xdpkit_md", **terms: Any) -> Provided:
    body, types = compiled(*sources, context=context)
    return provide(
        body,
        **{
            "constants": {"cookie": 0},
            "looked_up": None,
            "frags": False,
            "types": types,
            "throw": None,
            "name": "fw",
            **terms,
        },
    )


def refusal(*sources: Source, **terms: Any) -> str:
    with pytest.raises(RequirementUnmet) as refused:
        provided(*sources, **terms)
    text = str(refused.value)
    assert text.startswith("provide the extended context of fw: ")
    return text.removeprefix("provide the extended context of fw: ")


def main(*instructions: Instruction) -> Source:
    return Source("fw", 1, instructions)


def caller(count: int) -> Source:
    """Return a main function that calls the next one with so many arguments."""
    arguments = [asm.mov(Register(number), 0) for number in range(2, count + 1)]
    return main(*arguments, asm.call_subprogram(1), EXIT)


@pytest.mark.parametrize(
    "write",
    [
        asm.store(R1, PORT, 5, size=4),
        asm.store(R1, PORT, R1, size=1),
        asm.atomic(Atomic.ADD, R1, PORT, R0, size=4),
    ],
)
def test_fields_cannot_be_written(write: Instruction) -> None:
    assert refusal(main(asm.mov(R0, 2), write, EXIT)) == (
        "it writes port_index (fw.c:2), which can only be read"
    )


def test_one_instruction_that_reads_one_of_several_fields_is_refused() -> None:
    def choice(other: int) -> Source:
        return main(
            asm.load(R3, R1, 16, size=4),
            asm.mov(R2, LENGTH),
            asm.branch(JmpOp.JEQ, R3, 0, 1),
            asm.mov(R2, other),
            asm.alu(AluOp.ADD, R1, R2),
            asm.load(R0, R1, size=4),
            EXIT,
        )

    text = (
        "it reads {} or frame_len with one instruction (fw.c:6), and which of them is not known"
        " beforehand\nRemedy: copy each of them into a volatile variable, and choose between those"
    )
    assert refusal(choice(PORT)) == text.format("port_index")
    assert refusal(choice(16)) == text.format("rx_queue_index")
    assert refusal(choice(500)) == text.format("another part of its context")


def test_one_instruction_that_reads_a_field_or_something_else_is_refused() -> None:
    text = refusal(
        main(
            asm.load(R3, R1, 16, size=4),
            asm.branch(JmpOp.JEQ, R3, 0, 2),
            asm.mov(R1, R10),
            asm.alu(AluOp.ADD, R1, -8 - LENGTH),
            READ_LENGTH,
            EXIT,
        )
    )
    assert text == (
        "it reads frame_len or something else with one instruction (fw.c:5), and which of them is"
        " not known beforehand\nRemedy: copy frame_len into a volatile variable, and choose between"
        " that and the other"
    )


def test_a_subprogram_that_is_called_with_the_context_and_with_something_else_is_refused() -> None:
    code = main(
        asm.mov(R6, R1),
        asm.call_subprogram(5),
        asm.mov(R1, R10),
        asm.alu(AluOp.ADD, R1, -8 - LENGTH),
        asm.store(R10, -8, 1),
        asm.call_subprogram(1),
        EXIT,
    )
    text = refusal(code, Source("f", 1, (READ_LENGTH, EXIT)))
    assert text.startswith("it reads frame_len or something else with one instruction (fw.c:8)")


def test_a_subprogram_that_is_called_in_too_many_ways_is_refused() -> None:
    calls: list[Instruction] = [asm.store(R10, -8, R1), asm.load(R6, R1, 16, size=4)]
    for number in range(40):
        calls += [
            asm.branch(JmpOp.JNE, R6, number, 5),
            asm.mov(R1, R10),
            asm.alu(AluOp.ADD, R1, -8),
            asm.mov(R2, number),
            asm.call_subprogram(2 + 6 * (39 - number) + 1),
            EXIT,
        ]
    callee = Source("length", 2, (asm.load(R1, R1), asm.mov(R3, R2), READ_LENGTH, EXIT))
    assert refusal(main(*calls, asm.mov(R0, 2), EXIT), callee) == (
        "length reads frame_len (fw.c:247), and is called in more ways than can be followed, so"
        " that it may be something else that it reads\n"
        "Remedy: read frame_len in the main function, and pass its value on"
    )


@pytest.mark.parametrize("context", ["xdpkit_md", "xdp_md"])
@pytest.mark.parametrize(
    ("offset", "name"),
    [
        (PORT, "port_index"),
        (COOKIE + 4, "cookie"),
        (1040, "rx_hash"),
        (1060, "what is at offset 1060 of its context"),
    ],
)
def test_the_address_of_a_field_is_nobodys(offset: int, name: str, context: str) -> None:
    code = main(
        asm.mov(R2, R1),
        asm.alu(AluOp.ADD, R2, offset),
        asm.ld_imm64(R1, 5, source=PseudoSrc.MAP_FD),
        asm.call("map_lookup_elem"),
        asm.mov(R0, 2),
        EXIT,
    )
    assert refusal(code, context=context) == (
        f"it takes the address of {name} (fw.c:5)\n"
        "Remedy: copy it into a variable, and take the address of that"
    )


def test_the_address_of_a_field_is_the_programs_own() -> None:
    passes = main(asm.alu(AluOp.ADD, R1, LENGTH), asm.call_subprogram(1), EXIT)
    reads = (asm.load(R0, R1, size=4), EXIT)
    assert provided(passes, Source("f", 1, reads)).fields == ("frame_len",)
    text = refusal(passes, Source("f", 1, reads, is_global=True))
    assert text.startswith("it takes the address of frame_len (fw.c:2)")


@pytest.mark.parametrize("context", ["xdpkit_md", "xdp_md"])
def test_a_field_of_a_later_version_is_refused_by_its_name(context: str) -> None:
    assert refusal(main(asm.load(R0, R1, 1040, size=4), EXIT), context=context) == (
        "it reads rx_hash (fw.c:1), which this version of xdpkit does not provide\n"
        "Remedy: use the version of xdpkit whose xdpkit.h it was compiled with, or a later one"
    )


def test_a_field_without_a_name_is_refused_by_its_offset() -> None:
    code = main(asm.load(R0, R1, 1048), EXIT)
    assert refusal(code).startswith("it reads 8 bytes at offset 1048 of its context (fw.c:1)")
    without = refusal(code, types=None)
    assert without.startswith("it reads 8 bytes at offset 1048 of its context (slot 0)")


def test_a_load_of_two_fields_at_once_is_refused() -> None:
    assert refusal(main(asm.load(R0, R1, PORT), EXIT)) == (
        "it reads 8 bytes at port_index (fw.c:1), and the field ends before that\n"
        "Remedy: read each field by itself"
    )


def test_a_port_that_nobody_gave_is_refused() -> None:
    code = main(asm.load(R0, R1, PORT, size=4), EXIT)
    assert refusal(code) == (
        "it reads port_index (fw.c:1), and has no port\n"
        "Remedy: attach it to an interface that is a port (xdpkit ports); to load it elsewhere, say"
        " which port it is to be: port_index, in 'xdpkit run' --port-index"
    )


def test_a_subprogram_with_five_arguments_gets_no_other() -> None:
    callee = Source("length", 5, (READ_LENGTH, EXIT))
    assert refusal(caller(5), callee) == (
        "length reads frame_len (fw.c:7), which only the main function knows, and cannot be told:"
        " it has 5 arguments, which is the most\n"
        "Remedy: read it in the main function, and pass its value on"
    )
    # What is declared and what the compiler made of it need not be the same.
    four = (asm.mov(R0, R5), READ_LENGTH, EXIT)
    assert "it was compiled to read r5, the last register for arguments" in refusal(
        caller(5), Source("length", 4, four)
    )
    assert provided(caller(4), Source("length", 4, (READ_LENGTH, EXIT))).fields == ("frame_len",)


@pytest.mark.parametrize(
    ("kfuncs", "fits"),
    [
        ({3: Reference(RelocationKind.KFUNC, "bpf_rcu_read_lock")}, True),
        ({3: Reference(RelocationKind.KFUNC, "f", arguments=4)}, True),
        ({3: Reference(RelocationKind.KFUNC, "f", arguments=5)}, False),
        ({}, False),
    ],
)
def test_a_kernel_function_takes_the_arguments_of_its_prototype(
    kfuncs: dict[int, Reference], fits: bool
) -> None:
    code = (asm.mov(R6, R1), asm.call_kfunc(77), asm.load(R0, R6, LENGTH, size=4), EXIT)
    functions = caller(1), Source("length", 1, code)
    if fits:
        assert provided(*functions, kfuncs=kfuncs).fields == ("frame_len",)
    else:
        assert "it was compiled to read r5" in refusal(*functions, kfuncs=kfuncs)


def test_a_subprogram_on_the_way_is_named() -> None:
    arguments = [asm.mov(Register(number), 0) for number in range(2, 6)]
    middle = Source("middle", 5, (asm.call_subprogram(1), EXIT))
    assert refusal(
        main(*arguments, asm.call_subprogram(1), EXIT),
        middle,
        Source("last", 1, (READ_LENGTH, EXIT)),
    ) == (
        "last reads frame_len (fw.c:9), which only the main function knows, and would be told"
        " through middle: that has 5 arguments, which is the most\n"
        "Remedy: read it in the main function, and pass its value on"
    )


def test_a_global_function_cannot_be_told() -> None:
    callee = Source("length", 1, (READ_LENGTH, EXIT), is_global=True)
    assert refusal(caller(1), callee) == (
        "length reads frame_len (fw.c:3), which only the main function knows, and cannot be told:"
        " it is global, so that the verifier looks at it by itself\nRemedy: make length static"
    )


def test_a_function_without_type_information_cannot_be_told() -> None:
    callee = Source("length", 1, (READ_LENGTH, EXIT))
    assert refusal(caller(1), callee, types=None) == (
        "the function at slot 2 reads frame_len (slot 2), which only the main function knows, and"
        " cannot be told: it has no type information (BTF), which would say what its arguments are"
        "\nRemedy: read it in the main function, and pass its value on"
    )


def test_a_function_that_is_called_back_cannot_be_told() -> None:
    code = main(
        asm.store(R10, -8, R1),
        asm.mov(R1, 4),
        asm.ld_imm64(R2, 7, source=PseudoSrc.FUNC),
        asm.mov(R3, R10),
        asm.alu(AluOp.ADD, R3, -8),
        asm.mov(R4, 0),
        asm.call("loop"),
        asm.mov(R0, 2),
        EXIT,
    )
    callback = Source("each", 2, (asm.load(R1, R2), READ_LENGTH, EXIT))
    assert refusal(code, callback) == (
        "each reads frame_len (fw.c:12), which only the main function knows, and cannot be told:"
        " it is called back\nRemedy: read it in the main function, and pass its value on"
    )


def test_a_program_that_cannot_be_followed_is_refused_if_it_takes_the_fields() -> None:
    # It calls itself.
    code = main(asm.call_subprogram(2), READ_LENGTH, EXIT)
    callee = Source("again", 1, (asm.call_subprogram(-1), EXIT))
    assert refusal(code, callee) == (
        "which of its instructions read the fields cannot be found out: again calls itself\n"
        "Remedy: if it reads none of them, have its main function take a struct xdp_md"
    )
    # Without types, nothing says that the load is of a field; the verifier knows.
    assert provided(code, callee, types=None).fields == ()


@pytest.mark.parametrize(
    ("depth", "cause"),
    [
        (512, "8 more bytes of stack are needed, and the program may use 512 of 512"),
        (504, None),
    ],
)
def test_main_must_have_stack_left(depth: int, cause: str | None) -> None:
    code = main(asm.store(R10, -depth, 1), READ_LENGTH, EXIT)
    if cause is None:
        assert provided(code).fields == ("frame_len",)
    else:
        assert refusal(code) == cause


def test_a_subprogram_must_have_stack_left() -> None:
    callee = Source("length", 1, (asm.store(R10, -512, 1), READ_LENGTH, EXIT))
    assert refusal(caller(1), callee) == (
        "8 more bytes of stack are needed in length, which uses all 512"
    )


def test_what_a_subprogram_keeps_may_be_too_much_for_a_chain_of_calls() -> None:
    # Of what main uses, there are 8 bytes left that the verifier counts all the same.
    code = main(asm.store(R10, -248, 1), asm.call_subprogram(1), EXIT)
    room = Source("length", 1, (asm.store(R10, -248, 1), READ_LENGTH, EXIT))
    assert provided(code, room).fields == ("frame_len",)
    none = Source("length", 1, (asm.store(R10, -256, 1), READ_LENGTH, EXIT))
    assert refusal(code, none) == (
        "its chain of calls would use 528 bytes of stack, and 512 is the most"
    )


def test_a_chain_of_calls_must_have_stack_left() -> None:
    code = main(asm.store(R10, -256, 1), asm.call_subprogram(1), EXIT)
    callee = Source("length", 1, (asm.store(R10, -240, 1), READ_LENGTH, EXIT))
    assert refusal(code, callee) == (
        "its chain of calls would use 528 bytes of stack, and 512 is the most"
    )


@pytest.mark.parametrize(
    ("terms", "cause"),
    [
        ({"constants": {"rx_hash": 1}}, "it has no field rx_hash"),
        ({"constants": {"port_index": 1 << 32}}, "port_index has 4 bytes, and is not 4294967296"),
        ({"constants": {"cookie": -1}}, "cookie has 8 bytes, and is not -1"),
        ({"looked_up": "rx_queue_index"}, "no port can be looked up by rx_queue_index"),
        ({"constants": {}}, "it reads cookie (fw.c:1), which is not given"),
    ],
)
def test_terms_that_make_no_sense_are_refused(terms: dict[str, Any], cause: str) -> None:
    with pytest.raises(UsageError) as refused:
        provided(main(asm.load(R0, R1, COOKIE), EXIT), **terms)
    assert refused.value.cause == cause


def test_an_instruction_that_is_not_known_is_refused_if_it_takes_the_fields() -> None:
    unknown = Instruction(0xFF)
    assert "the instruction at slot 0 is not known" in refusal(main(unknown, READ_LENGTH, EXIT))


def test_malformed_code_is_refused() -> None:
    body = Body(machine_code(READ_LENGTH))
    with pytest.raises(ObjectFormatError, match="control runs off the end of the program"):
        provide(body, constants={}, looked_up=None, frags=False, types=None, throw=None)
