# SPDX-License-Identifier: Apache-2.0
"""What is shown of the verifier's log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.kernel.verifier import MAX_LINE, MAX_LINES, is_for_lack_of_perfmon, read_log

PACKET = """\
func#0 @0
0: R1=ctx() R10=fp0
; __u8 *data = (__u8 *)(long)ctx->data; @ refused.c:15
0: (61) r1 = *(u32 *)(r1 +0)          ; R1=pkt(r=0)
; return data[12] == 8 ? XDP_PASS : XDP_DROP; @ refused.c:17
1: (71) r1 = *(u8 *)(r1 +12)
invalid access to packet, off=12 size=1, R1(id=0,off=12,r=0)
R1 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_excerpt_is_source_instruction_and_complaint() -> None:
    complaint = read_log(PACKET)
    assert complaint.excerpt == (
        "; return data[12] == 8 ? XDP_PASS : XDP_DROP; @ refused.c:17",
        "1: (71) r1 = *(u8 *)(r1 +12)",
        "invalid access to packet, off=12 size=1, R1(id=0,off=12,r=0)",
        "R1 offset is outside of the packet",
    )
    assert complaint.message == "R1 offset is outside of the packet"
    assert complaint.remedy == "compare the end of the access with ctx->data_end before it"


def test_states_of_registers_are_left_out() -> None:
    log = (
        "; *value @ fw.c:3\n"
        "from 4 to 6: R0=map_value_or_null(id=1) R10=fp0\n"
        "6: R0=map_value_or_null(id=1)\n"
        "6: (61) r0 = *(u32 *)(r0 +0)          ; R0=scalar() refs=2\n"
        "R0 invalid mem access 'map_value_or_null'\n"
    )
    complaint = read_log(log)
    assert complaint.excerpt == (
        "; *value @ fw.c:3",
        "6: (61) r0 = *(u32 *)(r0 +0)",
        "R0 invalid mem access 'map_value_or_null'",
    )
    assert complaint.remedy == "compare the pointer with NULL before using it"


def test_without_source_the_last_instructions_are_shown() -> None:
    log = "\n".join(f"{number}: (b7) r0 = {number}" for number in range(100)) + "\nmistake\n"
    complaint = read_log(log)
    assert len(complaint.excerpt) == MAX_LINES
    assert complaint.excerpt[-2:] == ("99: (b7) r0 = 99", "mistake")


def test_a_complaint_without_instructions_stands_alone() -> None:
    assert read_log("The sequence of 8193 jumps is too complex.\n").excerpt == (
        "The sequence of 8193 jumps is too complex.",
    )


@pytest.mark.parametrize("log", ["", "\n\n", "processed 0 insns (limit 1000000)\n"])
def test_an_empty_log_complains_about_nothing(log: str) -> None:
    complaint = read_log(log)
    assert complaint.message is None
    assert complaint.excerpt == ()


def test_a_remedy_is_given_only_if_it_is_sure() -> None:
    assert read_log("0: (95) exit\nsomething never seen before\n").remedy is None


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("R0 !read_ok", "return a value"),
        ("Unreleased reference id=2 alloc_insn=7", "release the reference"),
        ("cannot call GPL-restricted function from non-GPL compatible program", "license"),
        ("metadata kfuncs require device-bound program", "ifindex"),
        ("Possibly NULL pointer passed to trusted arg0", "NULL"),
    ],
)
def test_complaints_with_a_sure_remedy(line: str, remedy: str) -> None:
    assert remedy in (read_log(f"7: (95) exit\n{line}\n").remedy or "")


@given(st.text(alphabet=st.sampled_from("\n0123456789: ()abR;=@."), max_size=2000))
def test_any_text_gives_a_short_excerpt(log: str) -> None:
    complaint = read_log(log)
    assert len(complaint.excerpt) <= MAX_LINES
    assert all(len(line) <= MAX_LINE for line in complaint.excerpt)


@pytest.mark.parametrize(
    "message",
    [
        "R4 pointer comparison prohibited",
        "R2 pointer -= pointer prohibited",
        "R2 pointer arithmetic with <<= operator prohibited",
        "R1 leaks addr into map",
        "leaking pointer from stack off -8",
    ],
)
def test_what_only_processes_without_perfmon_hear_is_known(message: str) -> None:
    assert is_for_lack_of_perfmon(message)


def test_other_complaints_are_the_programs() -> None:
    assert not is_for_lack_of_perfmon("R0 !read_ok")
