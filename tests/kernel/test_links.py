# SPDX-License-Identifier: Apache-2.0
"""Links, and programs on tracepoints."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.kernel.compiled import read, returning
from tests.kernel.net import Veth
from xdpkit.errors import KernelRefused, UsageError
from xdpkit.kernel import Link, attach_tracepoint, link_ids, load_all
from xdpkit.syscalls import bpf
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, LinkType, XdpAction


def _attached(program: int, veth: Veth) -> Link:
    with entered(veth.netns):
        return Link(bpf.link_create(program, veth.interface.index, AttachType.XDP))


@pytest.mark.needs("live-frames")
def test_tracepoint_programs_run_while_their_link_lives(veth: Veth) -> None:
    with load_all(read("tracing")) as loaded, returning(XdpAction.ABORTED) as aborting:
        seen = loaded.maps["seen"]
        with attach_tracepoint(loaded.programs["typed"]) as typed:
            with attach_tracepoint(loaded.programs["raw"]) as raw:
                assert raw.info().type is LinkType.RAW_TRACEPOINT
                assert raw.info().tracepoint == "xdp_exception"
                assert typed.info().program_id == loaded.programs["typed"].id
                with entered(veth.netns):
                    aborting.run(bytes(64), live=True)
                both = dict(seen)
            with entered(veth.netns):
                aborting.run(bytes(64), live=True)
            one = dict(seen)
    assert both[0] == both[1]
    assert one[1] == both[1]
    assert one[0] >= both[0]


def test_other_programs_have_no_tracepoint() -> None:
    with returning(1) as program, pytest.raises(UsageError, match="neither"):
        attach_tracepoint(program)


@pytest.mark.needs("bpf-link-xdp")
def test_an_xdp_link_says_where_it_is(veth: Veth) -> None:
    with returning(2) as program, _attached(program.fileno(), veth) as link:
        info = link.info()
        assert info.type is LinkType.XDP
        assert info.ifindex == veth.interface.index
        assert info.program_id == program.id
        assert link.id in set(link_ids())
        link.detach()
        assert link.info().ifindex == 0


@pytest.mark.needs("bpf-link-xdp")
def test_a_program_is_replaced_only_if_it_is_the_expected_one(veth: Veth) -> None:
    with returning(1) as one, returning(2) as two, _attached(one.fileno(), veth) as link:
        with pytest.raises(KernelRefused) as refused:
            link.update(two, expected=two)
        assert refused.value.errno == errno.EPERM
        link.update(two, expected=one)
        assert link.info().program_id == two.id
        link.update(one)
        assert link.info().program_id == one.id


@pytest.mark.needs("bpf-link-xdp")
def test_a_pinned_link_outlives_its_descriptor(veth: Veth, bpffs: Path) -> None:
    with returning(2) as program:
        with _attached(program.fileno(), veth) as link:
            link.pin(bpffs / "link")
            number = link.id
        with Link.from_pin(bpffs / "link") as again:
            assert again.id == number
        with Link.from_id(number) as again:
            assert again.info().program_id == program.id
