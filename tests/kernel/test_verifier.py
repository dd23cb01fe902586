# SPDX-License-Identifier: Apache-2.0
"""What a refused program's error says."""

from __future__ import annotations

import errno

import pytest

from tests.kernel.compiled import read
from xdpkit.errors import VerifierError
from xdpkit.kernel import load, progload
from xdpkit.syscalls import bpf
from xdpkit.uapi.bpf import Cmd


def test_the_message_shows_source_instruction_and_remedy() -> None:
    with pytest.raises(VerifierError) as refused:
        load(read("refused").programs["unchecked_packet"])
    error = refused.value
    assert error.what == "load program unchecked_packet"
    assert error.errno == errno.EACCES
    assert "; return data[12] == 8" in str(error)
    assert "invalid access to packet, off=12 size=1" in str(error)
    assert "ctx->data_end" in (error.remedy or "")
    assert "processed" in error.log


def test_a_null_check_that_lacks_is_named() -> None:
    with pytest.raises(VerifierError, match="map_value_or_null") as refused:
        load(read("refused").programs["unchecked_null"])
    assert "NULL" in (refused.value.remedy or "")


def test_a_long_log_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progload, "_FIRST_LOG", 1024)
    with pytest.raises(VerifierError) as refused:
        load(read("refused").programs["long_way_to_a_mistake"])
    log = refused.value.log
    assert len(log) > 4096
    assert "\n0: (" in log[:400]
    assert log.rstrip().splitlines()[-1].startswith("processed")
    assert refused.value.errno == errno.EACCES
    assert len(str(refused.value).splitlines()) < 20


def test_a_refusal_without_a_log_is_no_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    def funnel(cmd: int, argument: object) -> int:
        if cmd == Cmd.PROG_LOAD:
            return -errno.ENOMEM
        return bpf.libc_bpf(cmd, argument)  # type: ignore[arg-type]

    monkeypatch.setattr(bpf, "funnel", funnel)
    with pytest.raises(Exception, match="out of memory") as refused:
        load(read("refused").programs["unchecked_null"])
    assert not isinstance(refused.value, VerifierError)


def test_a_log_can_be_asked_for_on_success() -> None:
    spec = read("resizing").programs["shrink"]
    with load(spec, log_level=2) as program:
        assert "processed" in program.log
    with load(spec) as program:
        assert program.log == ""
