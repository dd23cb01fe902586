# SPDX-License-Identifier: Apache-2.0
"""What a probe makes of the kernel's answers; the kernel stands in for itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from xdpkit import probes
from xdpkit.errors import UsageError
from xdpkit.probes import Answer, probe
from xdpkit.syscalls import bpf, privilege
from xdpkit.uapi import attr
from xdpkit.uapi.bpf import Cmd, MapFlags

Funnel = Callable[[int, object], int]


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(privilege, "lacks", lambda _: ())
    monkeypatch.setattr(privilege, "lift_memlock", lambda: None)
    probes.forget()
    yield
    probes.forget()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Funnel], None]:
    return lambda funnel: monkeypatch.setattr(bpf, "funnel", funnel)


def _descriptor() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def _old_kernel(cmd: int, argument: object) -> int:
    """Know plain maps and programs, and nothing else."""
    match argument:
        case attr.MapCreate(map_flags=0, map_name=b""):
            return _descriptor()
        case attr.ProgLoad(prog_name=b"", prog_flags=0, expected_attach_type=0):
            return _descriptor()
        case _:
            return -errno.EINVAL


def test_what_is_refused_while_the_plain_form_is_accepted_is_absent(
    answer: Callable[[Funnel], None],
) -> None:
    answer(_old_kernel)
    for name in ("map-name", "program-name", "map-mmapable", "map-rdonly-prog", "xdp-frags"):
        finding = probe(name)
        assert finding.answer is Answer.NO, name
        assert "EINVAL" in finding.evidence


def test_what_is_accepted_is_there(answer: Callable[[Funnel], None]) -> None:
    answer(lambda cmd, argument: _descriptor())
    assert probe("map-mmapable").answer is Answer.YES
    assert not probes.is_absent("map-mmapable")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.EINTR])
def test_a_refusal_for_another_reason_leaves_it_unknown(
    number: int, answer: Callable[[Funnel], None]
) -> None:
    answer(lambda cmd, argument: -number)
    for name in probes.FEATURES:
        assert probe(name).answer is Answer.UNKNOWN, name
        assert not probes.is_absent(name)


def test_what_fails_in_its_plain_form_too_is_unknown(answer: Callable[[Funnel], None]) -> None:
    answer(lambda cmd, argument: -errno.EINVAL)
    for name in ("map-mmapable", "program-name", "btf-float", "xdp-frags", "ringbuf"):
        finding = probe(name)
        assert finding.answer is Answer.UNKNOWN, name
        assert "without it" in finding.evidence


def test_only_conclusive_answers_are_remembered(answer: Callable[[Funnel], None]) -> None:
    answer(lambda cmd, argument: -errno.ENOMEM)
    assert probe("map-mmapable").answer is Answer.UNKNOWN
    answer(_old_kernel)
    assert probe("map-mmapable").answer is Answer.NO
    answer(lambda cmd, argument: _descriptor())
    assert probe("map-mmapable").answer is Answer.NO


def test_a_link_is_asked_for_without_attaching_anything(answer: Callable[[Funnel], None]) -> None:
    def kernel(cmd: int, argument: object) -> int:
        assert cmd == Cmd.LINK_CREATE
        assert isinstance(argument, attr.LinkCreate)
        assert argument.prog_fd == 0xFFFFFFFF
        return -errno.EBADF

    answer(kernel)
    assert probe("bpf-link-xdp").answer is Answer.YES


def test_a_map_flag_is_asked_for_alone(answer: Callable[[Funnel], None]) -> None:
    flags = []

    def kernel(cmd: int, argument: object) -> int:
        assert isinstance(argument, attr.MapCreate)
        flags.append(argument.map_flags)
        return _descriptor()

    answer(kernel)
    probe("map-rdonly-prog")
    assert flags == [MapFlags.RDONLY_PROG]


def test_an_unknown_feature_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="xdp-frags"):
        probe("xdp-fragments")
