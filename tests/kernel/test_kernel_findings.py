# SPDX-License-Identifier: Apache-2.0
"""What the running kernel offers to XDP programs, asked by trying it."""

from __future__ import annotations

import errno

import pytest

from xdpkit.capabilities import Answer
from xdpkit.errors import UsageError
from xdpkit.probes import offered
from xdpkit.probes.offered import kernel_finding, kernel_findings
from xdpkit.syscalls import bpf
from xdpkit.uapi.bpf import MapType


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    offered.forget()


@pytest.mark.parametrize(
    "name",
    [
        "link",
        "test-run",
        "helper:redirect",
        "helper:redirect_map",
        "helper:tail_call",
        "helper:xdp_adjust_head",
        "helper:xdp_adjust_tail",
        "helper:fib_lookup",
        "map-type:hash",
        "map-type:devmap",
        "map-type:devmap_hash",
        "map-type:cpumap",
        "map-type:prog_array",
        "map-type:array_of_maps",
        "map-type:lpm_trie",
    ],
)
def test_what_kernels_since_5_10_have_is_found(name: str) -> None:
    finding = kernel_finding(name)

    assert finding.answer is Answer.YES, finding.evidence
    assert finding.capability == name


@pytest.mark.parametrize(
    "name",
    [
        "helper:skb_load_bytes",
        "helper:clone_redirect",
        "kfunc:tcp_v4_rcv",
        "kfunc:no_such_function",
    ],
)
def test_what_xdp_programs_may_not_call_is_absent(name: str) -> None:
    finding = kernel_finding(name)

    assert finding.answer is Answer.NO, finding.evidence


@pytest.mark.parametrize("name", ["helper:no_such_helper", "map-type:struct_ops", "map-type:none"])
def test_what_there_is_no_question_for_is_unknown(name: str) -> None:
    assert kernel_finding(name).answer is Answer.UNKNOWN


def test_a_kernel_function_is_found_by_loading_a_call_of_it() -> None:
    names = ("kfunc:bpf_xdp_metadata_rx_hash", "kfunc:bpf_dynptr_from_xdp")
    for finding in kernel_findings(names).values():
        if finding.answer is Answer.NO:
            pytest.skip(f"needs {finding.capability}, which came with Linux 6.3 or 6.4")
        assert finding.answer is Answer.YES, finding.evidence


@pytest.mark.parametrize("kind", MapType.__members__.values())
def test_no_map_type_is_missing_for_a_wrong_question(kind: MapType) -> None:
    finding = kernel_finding(f"map-type:{kind.name.lower()}")

    newest = (MapType.BLOOM_FILTER, MapType.USER_RINGBUF, MapType.ARENA, MapType.XSKMAP)
    assert finding.answer is not Answer.NO or kind in newest, finding.evidence


def test_what_the_driver_offers_is_no_question_for_the_kernel() -> None:
    with pytest.raises(UsageError, match="the driver offers that"):
        kernel_finding("action-tx")
    with pytest.raises(UsageError, match="no such capability"):
        kernel_finding("no-such-thing")


def test_an_answer_is_remembered_only_if_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(bpf, "funnel", lambda cmd, argument: -errno.ENOMEM)
        assert kernel_finding("helper:redirect").answer is Answer.UNKNOWN
        assert kernel_finding("map-type:hash").answer is Answer.UNKNOWN
    assert kernel_finding("helper:redirect").answer is Answer.YES
    assert kernel_finding("map-type:hash").answer is Answer.YES
    with monkeypatch.context() as broken:
        broken.setattr(bpf, "funnel", lambda cmd, argument: -errno.ENOMEM)
        assert kernel_finding("helper:redirect").answer is Answer.YES
