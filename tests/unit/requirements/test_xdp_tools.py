# SPDX-License-Identifier: Apache-2.0
"""What the programs of Debian's xdp-tools and libxdp1 1.3.1 need.

The golden text was held against their manuals: xdp-filter passes or drops by what it finds in its
maps, and aborts where parsing or a look-up fails; xdpdump passes everything, and reports through a
perf event array; libxdp's program for AF_XDP redirects into a socket map, and passes what has no
socket (the one for old kernels looks the socket up first, because their helper knew no fallback);
the dispatcher passes as long as no program is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import xdpkit
from xdpkit.requirements import Requirements, needs_of
from xdpkit.uapi.bpf import ProgType

# Their bytes, so that other versions are not taken for wrong ones: SHA-256 of the file.
OBJECTS = {
    "xdp-dispatcher.o": "3978ad58054e6854755808b3195db6eda40fe4a43a19075966fa4937751a66eb",
    "xdpdump_xdp.o": "c397a91b680813302b8e229fc78b1d2f59dffddfe743052522dbf6d84b7adb88",
    "xdpfilt_alw_all.o": "3b5923e0ec783440346fea8c9ac27218c0f80118e61a65500ef82622b210db49",
    "xdpfilt_alw_eth.o": "afae46d521519e77d7ae22b02326c82ffde37a9b1c902028ac7a21efd22383f9",
    "xdpfilt_alw_ip.o": "457d624337311ca7edd8562864097864401ea60cf1be04a5fd6d144d115c1ec4",
    "xdpfilt_alw_tcp.o": "babf623f3049e8b116a7599270ebc0d0160889f318dc8ccddd8e249953318ef2",
    "xdpfilt_alw_udp.o": "95efdf0c67a4d987d7427c21f2fad4be1445c2bb46f827bdddf04cae3c3b0760",
    "xdpfilt_dny_all.o": "01dad5cc4004aeff4c1e4b19b27d2931df8bba3c151f1718f4aa93df4eb4ecb7",
    "xdpfilt_dny_eth.o": "85df794c0eb462d911b5d94c7837a92d4491499f7a3b6efac34a887446c2ad40",
    "xdpfilt_dny_ip.o": "33ad595198daf5bb07a97daf3d292a481b9579495baed2787029ffe042ea319b",
    "xdpfilt_dny_tcp.o": "b83e680a2a4601348cc37be2ce589081f9648425274d5b2839b7eac93febc581",
    "xdpfilt_dny_udp.o": "8adb728810d47863fbe60859868f74bd58f50c3df5967931641c7a67064c49d9",
    "xsk_def_xdp_prog.o": "9163ffa5255245db2f1e9da16ce441a0644a282b0fedfb5cec4b28f15741c857",
    "xsk_def_xdp_prog_5.3.o": "0956eb0905959262ad1c5fee70d2bf6cf7ad0af97956f86d8947f29aaeed9ed0",
}


def installed(name: str) -> xdpkit.Object:
    """Read an object of the packages; skip the test where this version is not installed."""
    for path in Path("/usr/lib").glob(f"*/bpf/{name}"):
        if hashlib.sha256(path.read_bytes()).hexdigest() == OBJECTS[name]:
            return xdpkit.read(path)
    pytest.skip(f"no {name} of version 1.3.1: apt-get install xdp-tools libxdp1 (Debian 12)")


def described(needs: Requirements) -> Iterator[str]:
    yield needs.program
    for need in needs:
        optional = " (optional)" if need.optional else ""
        places = " ".join(dict.fromkeys(str(origin) for origin in need.origins))
        yield f"  {need.label}{optional}: {places}"
    for note in needs.notes:
        yield f"  note: {note}"


@pytest.mark.parametrize("name", OBJECTS)
def test_the_needs_of_foreign_programs_are_as_documented(
    name: str, golden: Callable[[str, str], None]
) -> None:
    programs = installed(name).programs.values()
    lines = [
        line for spec in programs if spec.type == ProgType.XDP for line in described(needs_of(spec))
    ]
    golden(f"{name}.txt", "\n".join([*lines, ""]))


def test_the_dispatcher_needs_what_its_configuration_makes_of_it() -> None:
    obj = installed("xdp-dispatcher.o")
    conf = obj.variables["conf"]
    assert isinstance(conf, dict)
    # A slot without a program returns 31, which ends the chain unless it is listed.
    obj.variables["conf"] = {**conf, "num_progs_enabled": 2, "chain_call_actions": [1 << 2] * 10}
    ended = needs_of(obj.programs["xdp_dispatcher"])
    assert [item.capability for item in ended][:1] == ["action-code:31"]

    chained = [1 << 2 | 1 << 31] * 10
    obj.variables["conf"] = {**conf, "num_progs_enabled": 2, "chain_call_actions": chained}
    passed = needs_of(obj.programs["xdp_dispatcher"])
    assert [item.capability for item in passed][:1] == ["action-pass"]
