# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xdpkit
from xdpkit import compiler
from xdpkit.errors import ObjectFormatError
from xdpkit.requirements import Requirement
from xdpkit.requirements.declared import Declaration, declared, parse

SOURCE = """
#include <xdpkit.h>

XDPKIT_NEEDS("action-tx");
XDPKIT_OPTIONAL("rx-hash");
XDPKIT_NEEDS_OF(second, "rx-hash");
XDPKIT_OPTIONAL_OF(second, "helper:redirect_map");

SEC("xdp") int first(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int second(struct xdp_md *ctx) { return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""


def built(folder: Path, text: str) -> list[xdpkit.Object]:
    """Compile with every compiler that is here; skip the test where there is none."""
    found = compiler.find_compilers()
    if not found:
        pytest.skip("no compiler for BPF: apt-get install clang, or pip install ziglang")
    source = folder / "declaring.c"
    source.write_text(text)
    return [xdpkit.read(compiler.compile(source, compiler=each.name).path) for each in found]


def test_the_macros_declare_for_all_programs_or_for_one(tmp_path: Path) -> None:
    for obj in built(tmp_path, SOURCE):
        assert declared(obj.programs["first"]) == (
            Requirement("action-tx", declared=True),
            Requirement("rx-hash", optional=True, declared=True),
        )
        assert declared(obj.programs["second"]) == (
            Requirement("action-tx", declared=True),
            Requirement("rx-hash", declared=True),
            Requirement("helper:redirect_map", optional=True, declared=True),
        )


def test_a_declaration_about_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    obj = built(tmp_path, SOURCE.replace("second,", "third,"))[0]

    with pytest.raises(ObjectFormatError, match="'third' is no program") as caught:
        declared(obj.programs["first"])
    assert caught.value.section == ".xdpkit"


def test_records_are_texts_and_padding_is_skipped() -> None:
    data = b"\0\0\0001 needs:action-tx\0\0\0001 optional:kfunc:bpf_x prog\0"
    assert parse(data) == (
        Declaration("action-tx", False, None, 3),
        Declaration("kfunc:bpf_x", True, "prog", 23),
    )
    assert parse(b"") == ()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"1 needs:action-tx", "the last record is not ended"),
        (b"needs:action-tx\0", "is no declaration"),
        (b"1 needs action-tx\0", "is no declaration"),
        (b"1 needs:action-tx \0", "is no declaration"),
        (b"1\0", "is no declaration"),
        (b"x needs:action-tx\0", "is no declaration"),
        (b"2 needs:action-tx\0", "a declaration of version 2"),
        (b"1 wants:action-tx\0", "'wants' is neither"),
        (b"1 needs:action-fly\0", "'action-fly': there is no such capability"),
        (b"1 needs:\xff\xfe\0", "there is no such capability"),
        (b"1 needs:action-any\0", "nothing that a program can declare"),
        (b"1 needs:action-code:42\0", "nothing that a program can declare"),
        (b"1 needs:precondition:mtu\0", "nothing that a program can declare"),
        (b"1 needs:helper:" + b"x" * 300 + b"\0", "is no declaration"),
        (b"1 needs:action-tx\0" * 1025, "more than 1024 declarations"),
    ],
)
def test_hostile_contents_are_a_malformed_object(data: bytes, cause: str) -> None:
    with pytest.raises(ObjectFormatError) as caught:
        parse(data, file="bad.o")
    assert cause in caught.value.cause
    assert caught.value.file == "bad.o"
    assert caught.value.section == ".xdpkit"


@given(st.binary(max_size=200) | st.from_regex(rb"([12] (needs|optional):[a-z:-]{0,12}\0)*"))
def test_any_bytes_give_declarations_or_a_format_error(data: bytes) -> None:
    try:
        found = parse(data)
    except ObjectFormatError:
        return
    assert all(each.capability for each in found)
