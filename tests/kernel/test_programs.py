# SPDX-License-Identifier: Apache-2.0
"""Programs in the kernel."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.kernel.compiled import assembled, hash_map, returning
from xdpkit.errors import UsageError
from xdpkit.isa import asm, decode
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Map, Program, program_ids
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import ObjectKind
from xdpkit.uapi.bpf import ProgType, XdpAction


def test_a_program_says_what_it_is() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with returning(XdpAction.PASS, name="a_program_with_a_long_name") as program:
        info = program.info()
        assert info.name == program.name == "a_program_with_"
        assert info.type is ProgType.XDP
        assert info.id == program.id
        assert info.tag == program.tag
        assert len(bytes.fromhex(info.tag)) == 8
        assert info.created_by_uid == os.getuid()
        assert info.gpl_compatible
        assert info.map_ids == ()
        assert info.xlated_size == 16
        assert before <= info.load_time_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_the_tag_tells_programs_apart() -> None:
    with returning(1) as one, returning(2) as two, returning(1) as again:
        assert one.tag == again.tag != two.tag


def test_the_rewritten_instructions_can_be_read() -> None:
    code = asm.mov(Register.R0, 2), asm.exit()
    with assembled(*code) as program:
        assert decode(program.xlated()) == code


def test_runs_are_counted_while_statistics_are_on() -> None:
    with returning(1) as program:
        program.run(bytes(64), repeat=10)
        assert program.info().run_count == 0
        with bpf.enable_run_stats():
            program.run(bytes(64), repeat=10)
        # Test runs are not counted by every kernel; that it may be read is what counts here.
        assert program.info().run_count in (0, 10)


def test_a_program_is_found_by_its_id() -> None:
    with returning(1) as program:
        assert program.id in set(program_ids())
        with Program.from_id(program.id) as again:
            assert again.info() == program.info()
        number = program.id
    with pytest.raises(UsageError, match="none with this id"):
        Program.from_id(number)


def test_a_pinned_program_is_found_again(bpffs: Path) -> None:
    with returning(1) as program:
        program.pin(bpffs / "program")
        tag = program.tag
    with Program.from_pin(bpffs / "program") as again:
        assert again.tag == tag
    with hash_map() as table:
        table.pin(bpffs / "map")
    with pytest.raises(UsageError, match="a map, not a program"):
        Program.from_pin(bpffs / "map")


@pytest.mark.needs("prog-bind-map")
def test_a_bound_map_lives_as_long_as_the_program() -> None:
    with returning(1) as program:
        tag = program.tag
        with hash_map() as table:
            program.bind(table)
            number = table.id
        assert program.info().map_ids == (number,)
        assert program.tag == tag
        with Map.from_id(number) as again:
            assert again.name == "table"


def test_every_descriptor_says_what_it_is_of() -> None:
    with returning(1) as program, hash_map() as table, open(os.devnull) as other:
        assert bpf.kind_of(program.fileno()) is ObjectKind.PROGRAM
        assert bpf.kind_of(table.fileno()) is ObjectKind.MAP
        assert bpf.kind_of(other.fileno()) is None


def test_a_closed_program_cannot_be_used() -> None:
    program = returning(1)
    program.close()
    program.close()
    with pytest.raises(UsageError, match="closed"):
        program.run(bytes(64))
    assert "closed" in repr(program)
