# SPDX-License-Identifier: Apache-2.0
"""Refusals in plain words: from the kernel's text, from an errno alone, and their catalogue."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from xdpkit.capabilities import Kernel
from xdpkit.hook import catalogue
from xdpkit.hook.catalogue import Cause, Refusal
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.refusals import UNKNOWN, explain
from xdpkit.interfaces import Interface, XdpIds, table
from xdpkit.interfaces.observation import Observation, Peer
from xdpkit.syscalls.ethtool import Channels, Offload
from xdpkit.syscalls.rtnetlink import LinkInfo

DOCUMENT = Path(__file__).parents[3] / "docs" / "refusals.md"
TABLES = "## Causes\n"

CATALOGUE: dict[str, Any] = json.loads(catalogue.PATH.read_text())
SPOKEN = [refusal for refusal in catalogue.refusals() if refusal.text is not None]

GENERIC = (
    "attach in generic mode (--mode generic, mode=Mode.GENERIC), at the cost of an skb per packet"
)


def name_of(refusal: Refusal) -> str:
    return f"{refusal.driver or 'kernel'}-{refusal.text or refusal.errno}"


def interface(
    driver: str | None = "veth", *, netns: str | None = None, mtu: int = 9000
) -> Interface:
    return Interface(
        index=4,
        name="eth0",
        netns=netns,
        netns_cookie=1,
        driver=driver,
        kind=None,
        mtu=mtu,
        rx_queues=8,
        tx_queues=8,
        xdp=XdpIds(),
    )


def link(name: str, *, mtu: int = 1500, peer_netns_id: int | None = None) -> LinkInfo:
    return LinkInfo(5, 1, name, 1, mtu, "veth", 8, 8, 4, peer_netns_id, XdpIds())


def observation(
    of: Interface,
    *,
    kernel: str = "6.18",
    channels: Channels | None = None,
    offloads: Mapping[str, Offload] | None = None,
    peer: Peer | None = None,
    peer_netns_id: int | None = None,
) -> Observation:
    return Observation(
        interface=of,
        link=link(of.name, mtu=of.mtu, peer_netns_id=peer_netns_id),
        kernel=Kernel.parse(kernel),
        machine="x86_64",
        page_size=4096,
        channels=channels,
        offloads=offloads or {},
        peer=peer,
    )


def written(refusal: Refusal, *, number: int = 3000) -> str:
    """Return a text as the kernel would write it."""
    prefix = f"{refusal.driver}: " if refusal.driver else ""
    return prefix + re.sub(r"%l?[diu]", str(number), refusal.text or "")


# The catalogue


def test_the_catalogue_has_every_text_of_the_kernel_and_of_the_drivers() -> None:
    told = [refusal for refusal in SPOKEN if refusal.source != "net/ethtool"]
    own = [r for r in told if r.source == "net/core/dev.c"]
    drivers = [r for r in told if r.driver is not None]

    assert (len(own), len(drivers)) == (24, 110)
    assert len({(r.driver, r.text) for r in SPOKEN}) == len(SPOKEN)


@pytest.mark.parametrize("entry", CATALOGUE["refusals"], ids=lambda entry: entry.get("text"))
def test_every_entry_is_complete(entry: dict[str, Any]) -> None:
    known = {"text", "driver", "errno", "cause", "numbers", "log", "below", "certain", "verbs"}
    assert set(entry) <= {*known, "modes", "via", "since", "absent", "until", "source"}
    assert {"text", "errno"} & set(entry)
    assert "net/" in entry["source"] or "kernel/" in entry["source"] or "drivers" in entry["source"]
    assert set(entry.get("verbs", ())) <= {"attach", "replace", "detach"}
    assert set(entry.get("modes", ())) <= {mode.value for mode in Mode}
    assert entry.get("via") in (None, *(via.value for via in Via))
    if "errno" in entry:
        assert hasattr(errno, entry["errno"])
    for key in ("since", "absent", "until"):
        assert re.fullmatch(r"[4-9]\.\d{1,2}", entry.get(key, "4.0"))


@pytest.mark.parametrize("refusal", SPOKEN, ids=name_of)
def test_releases_are_in_order_and_numbers_have_their_places(refusal: Refusal) -> None:
    assert refusal.since is not None
    assert refusal.until is None or refusal.since <= refusal.until
    places = len(re.findall(r"%l?[diu]", refusal.text or ""))
    assert len(refusal.numbers) in (0, places)


def test_every_driver_of_the_catalogue_is_in_the_table_of_drivers() -> None:
    drivers = {refusal.driver for refusal in catalogue.refusals()} - {None}

    assert drivers <= set(table.names())


def test_every_text_fits_what_listens_to_the_kernel() -> None:
    assert max(len(written(refusal)) for refusal in SPOKEN) < 256


def test_every_cause_is_used_and_none_is_written_twice() -> None:
    causes = CATALOGUE["causes"]

    assert {entry["cause"] for entry in CATALOGUE["refusals"]} == set(causes)
    said = [entry["says"][-1] for entry in causes.values()]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("cause", CATALOGUE["causes"].values(), ids=CATALOGUE["causes"])
def test_every_cause_can_be_said_with_the_least_that_is_known(cause: dict[str, Any]) -> None:
    fields = {name for _, name, _, _ in Formatter().parse(cause["says"][-1]) if name}

    assert fields <= {"name", "driver", "other"}
    assert all(cause["remedies"])


# From a text


@pytest.mark.parametrize("refusal", SPOKEN, ids=name_of)
def test_every_text_is_explained(refusal: Refusal) -> None:
    number = getattr(errno, refusal.errno or "EIO")
    cause, remedy = explain(number, written(refusal), interface(refusal.driver), Mode.NATIVE)

    assert not cause.startswith(UNKNOWN)
    assert cause.endswith(f"the kernel says {written(refusal)!r}")
    assert "{" not in f"{cause}{remedy}"


@pytest.mark.parametrize("refusal", SPOKEN, ids=name_of)
def test_every_text_is_found_as_the_one_that_it_is(refusal: Refusal) -> None:
    found = catalogue.find(written(refusal), refusal.driver)

    assert found is not None
    assert found[0] is refusal


def test_a_text_is_explained_with_its_numbers() -> None:
    said = "bnxt_en 0000:01:00.0 eth0: MTU 9000 larger than 3502 without XDP frag support."
    cause, remedy = explain(errno.EOPNOTSUPP, said, interface("bnxt_en"), Mode.NATIVE)

    assert cause == (
        "the MTU of eth0, 9000, is above 3502, the largest that driver bnxt_en takes for a program"
        f" without frags; the kernel says {said!r}"
    )
    assert remedy == (
        f"ip link set dev eth0 mtu 3502; or use a program in section xdp.frags; or {GENERIC}"
    )


def test_a_text_that_the_kernel_cut_off_is_recognised() -> None:
    said = (
        "Reserving 2 XDP TXQs does not leave a minimum of 2 TXQs for network stack (total 2"
        " available)"
    )
    cut = said[:79]

    assert len(cut) == 79
    assert explain(errno.EBUSY, cut, interface("fsl_enetc"), Mode.NATIVE).cause.startswith(
        "driver fsl_enetc needs TX queues of their own for XDP"
    )
    assert explain(errno.EBUSY, said[:60], interface("fsl_enetc"), Mode.NATIVE).cause == (
        f"{UNKNOWN}; the kernel says {said[:60]!r}"
    )


def test_of_a_text_that_two_drivers_share_the_interfaces_own_counts() -> None:
    said = "MTU too large to enable XDP"

    for driver in ("virtio_net", "i40e"):
        found = catalogue.find(f"{driver}: {said}", driver)
        assert found is not None
        assert found[0].driver == driver


def test_the_name_that_ethtool_shows_stands_for_the_driver() -> None:
    found = explain(
        errno.EOPNOTSUPP, "Jumbo frames not supported", interface("st_gmac"), Mode.NATIVE
    )

    assert "too large for driver st_gmac" in found.cause


def test_what_a_device_below_says_is_not_said_of_the_interface() -> None:
    said = "ice: MTU is too large for linear frames and XDP prog does not support frags"
    cause, remedy = explain(errno.EOPNOTSUPP, said, interface("bonding"), Mode.NATIVE)

    assert cause.startswith("the MTU of a device below eth0 is too large")
    assert remedy == f"use a program in section xdp.frags; or {GENERIC}"
    said = "unable to propagate XDP to device using memory provider"
    cause, _ = explain(errno.EBUSY, said, interface("hv_netvsc"), Mode.NATIVE)
    assert cause.startswith("a device below eth0 receives into a memory provider")


@pytest.mark.parametrize(
    "said", ["a new text", "ice: a new text", "MTU", "MTU many too large for XDP"]
)
def test_a_text_that_nobody_knows_is_passed_on(said: str) -> None:
    assert explain(errno.EINVAL, said, interface("vmxnet3"), Mode.NATIVE) == (
        f"{UNKNOWN}; the kernel says {said!r}",
        None,
    )


# Remedies


def test_a_veths_peer_is_named_with_its_namespace_entered() -> None:
    said = "veth: Peer MTU is too large to set XDP"
    veth = interface(netns="blue")
    seen = observation(veth, peer=Peer(link("peer0", mtu=9000), Channels(4, 4), None))

    assert explain(errno.ERANGE, said, veth, Mode.NATIVE, seen=seen).remedy == (
        "lower the peer's MTU: nsenter --net=/run/netns/blue ip link set dev peer0 mtu 1500;"
        " or use a program in section xdp.frags"
    )


def test_a_peer_in_another_namespace_is_changed_there() -> None:
    veth = interface()
    seen = observation(
        veth, channels=Channels(2, 2), peer=Peer(link("p"), None, None), peer_netns_id=3
    )

    assert explain(errno.ENOSPC, None, veth, Mode.NATIVE, seen=seen) == (
        "eth0 has fewer RX queues in use than its veth peer has TX queues",
        "reduce the peer's, in its namespace: ethtool -L p tx 2",
    )


def test_frags_are_no_remedy_in_a_kernel_without_them() -> None:
    veth = interface()
    seen = observation(veth, kernel="5.10", peer=Peer(link("p", mtu=9000), None, None))

    assert "frags" not in str(explain(errno.ERANGE, None, veth, Mode.NATIVE, seen=seen).remedy)


@pytest.mark.parametrize(
    ("offloads", "remedy"),
    [
        (None, "ethtool -K eth0 rx-lro off; or "),
        ({"rx-lro": Offload(True, True)}, "ethtool -K eth0 rx-lro off; or "),
        (
            {"rx-lro": Offload(True, True), "rx-gro-hw": Offload(True, True)},
            "ethtool -K eth0 rx-lro off rx-gro-hw off; or ",
        ),
        ({"rx-lro": Offload(False, True), "rx-gro-hw": Offload(True, False)}, ""),
    ],
)
def test_what_merges_packets_is_switched_off_if_it_can_be(
    offloads: Mapping[str, Offload] | None, remedy: str
) -> None:
    nic = interface("mlx5_core")
    seen = observation(nic, offloads=offloads) if offloads is not None else None
    said = "can't set XDP while HW-GRO/LRO is on, disable them first"

    assert explain(errno.EINVAL, said, nic, Mode.NATIVE, seen=seen).remedy == f"{remedy}{GENERIC}"


@pytest.mark.parametrize(
    ("driver", "said", "remedy"),
    [
        ("ena", "there is no enough space for allocating XDP queues", "combined 4"),
        ("gve", "XDP load failed", "rx 4 tx 4"),
        ("bnxt_en", "channels must be combined", "rx 0 tx 0 combined 8"),
    ],
)
def test_queues_are_given_up_by_their_number(driver: str, said: str, remedy: str) -> None:
    nic = interface(driver)
    (text,) = [r.text for r in SPOKEN if r.driver == driver and said in (r.text or "")]
    seen = observation(nic, channels=Channels(8, 8))

    found = explain(errno.EINVAL, text, nic, Mode.NATIVE, seen=seen)
    assert str(found.remedy).startswith(f"ethtool -L eth0 {remedy}; or ")
    assert explain(errno.EINVAL, text, nic, Mode.NATIVE).remedy == GENERIC


def test_an_mtu_is_lowered_to_what_the_table_says_the_driver_takes() -> None:
    nic = interface("ena")
    said = next(r.text for r in SPOKEN if r.driver == "ena" and r.cause.name == "mtu")

    found = explain(errno.EINVAL, said, nic, Mode.NATIVE, seen=observation(nic))
    assert str(found.remedy).startswith("ip link set dev eth0 mtu 3498; or ")
    assert "9000, is above 3498" in found.cause
    found = explain(errno.EINVAL, said, nic, Mode.NATIVE)
    assert str(found.remedy).startswith("ip link set dev eth0 mtu 1500; or ")


def test_names_in_commands_are_quoted() -> None:
    odd = Interface(4, "a;b", "/x y", 1, "gve", None, 9000, 1, 1, XdpIds())
    found = explain(errno.EOPNOTSUPP, "XDP is not supported for mtu 9000.", odd, Mode.NATIVE)

    assert "nsenter --net='/x y' ip link set dev 'a;b' mtu 1500" in str(found.remedy)


def test_generic_mode_helps_neither_a_replacement_nor_a_bound_program() -> None:
    said = "Underlying driver does not support XDP in native mode"
    nic = interface("r8169")

    assert explain(errno.EOPNOTSUPP, said, nic, Mode.NATIVE).remedy == GENERIC
    assert explain(errno.EOPNOTSUPP, said, nic, Mode.NATIVE, "replace").remedy is None
    assert explain(errno.EOPNOTSUPP, said, nic, Mode.NATIVE, is_bound=True).remedy is None


def test_the_command_that_empties_the_hook_is_said_where_it_is_known() -> None:
    said = "XDP program already attached"

    assert explain(errno.EBUSY, said, interface(netns="blue"), Mode.NATIVE).remedy == (
        "detach it first; 'xdpkit status -n blue eth0' shows it"
    )
    told = explain(errno.EBUSY, said, interface(), Mode.NATIVE, removal="xdpkit detach eth0")
    assert told.remedy == "detach it first: xdpkit detach eth0"


# From an errno


@pytest.mark.parametrize(
    ("number", "verb", "via", "cause"),
    [
        (errno.EPERM, "replace", Via.LINK, "the program on eth0 is not the expected one"),
        (errno.EPERM, "detach", Via.LINK, "the program on eth0 is not the expected one"),
        (errno.EINVAL, "replace", Via.LINK, "the new program is of another type"),
        (errno.ENOLINK, "replace", Via.LINK, "eth0 is gone, or the link was detached"),
        (errno.EPERM, "attach", Via.NETLINK, "this process lacks CAP_NET_ADMIN"),
        (errno.ENODEV, "detach", Via.NETLINK, "eth0 is gone"),
        (errno.ERANGE, "replace", Via.LINK, "the MTU of eth0's veth peer is too large"),
        (errno.ENOTCONN, "attach", Via.NETLINK, "eth0's veth peer is being removed"),
        (errno.EBADF, "attach", Via.LINK, "the program's descriptor is closed"),
        (errno.ENOMEM, "replace", None, "memory ran out"),
    ],
)
def test_an_errno_that_stands_for_one_thing_says_it(
    number: int, verb: str, via: Via | None, cause: str
) -> None:
    found = explain(number, None, interface(), Mode.NATIVE, verb, via=via, is_bound=False)

    assert found.cause.startswith(cause)


def test_an_errno_of_many_meanings_is_unknown_with_what_it_can_be() -> None:
    found = explain(
        errno.EINVAL,
        None,
        interface("mlx5_core"),
        Mode.NATIVE,
        via=Via.LINK,
        heard=True,
        is_bound=False,
        seen=observation(interface("mlx5_core")),
    )

    assert found == (
        "cause unknown; known ones: eth0 merges packets in hardware (LRO, HW-GRO), which driver"
        " mlx5_core does not combine with XDP; the MTU of eth0, 9000, is above 3498, the largest"
        " that driver mlx5_core takes with XDP; the MTU of eth0, 9000, is above 3498, the largest"
        " that driver mlx5_core takes for a program without frags",
        None,
    )


def test_a_small_mtu_is_not_what_is_wrong() -> None:
    found = explain(
        errno.EINVAL,
        None,
        interface("mlx5_core", mtu=1500),
        Mode.NATIVE,
        via=Via.LINK,
        heard=True,
        is_bound=False,
    )

    assert found.cause.startswith("cause unknown; a known one: eth0 merges packets in hardware")


def test_what_helps_against_every_possible_cause_is_a_remedy() -> None:
    found = explain(errno.EOPNOTSUPP, None, interface("ice"), Mode.NATIVE)

    assert found.cause.startswith("cause unknown; known ones: the MTU of eth0, 9000, is too large")
    assert "safe mode" in found.cause
    assert found.remedy == GENERIC


def test_a_driver_without_native_xdp_is_told_with_the_mode_that_works() -> None:
    assert explain(errno.EOPNOTSUPP, None, interface(None), Mode.NATIVE) == (
        "its driver has no native XDP, or not in its present configuration (MTU, LRO, queues)",
        GENERIC,
    )


def test_a_driver_refuses_in_its_own_mode_only() -> None:
    native, generic, other = (
        explain(errno.ERANGE, None, interface(driver), mode).cause
        for driver, mode in (("veth", Mode.NATIVE), ("veth", Mode.GENERIC), ("ice", Mode.NATIVE))
    )

    assert native != UNKNOWN
    assert (generic, other) == (UNKNOWN, UNKNOWN)


def test_what_would_have_been_heard_is_not_what_happened() -> None:
    of = interface("r8169")
    deaf = explain(errno.EEXIST, None, of, Mode.NATIVE)

    assert "native and generic mode exclude each other" in deaf.cause
    assert explain(errno.EEXIST, None, of, Mode.NATIVE, heard=True).cause == UNKNOWN
    assert explain(errno.EEXIST, None, of, Mode.NATIVE, via=Via.NETLINK).cause == UNKNOWN


def test_a_driver_refused_before_it_said_why() -> None:
    of = interface("i40e")
    causes = [
        explain(
            errno.EINVAL,
            None,
            of,
            Mode.NATIVE,
            via=Via.NETLINK,
            seen=observation(of, kernel=kernel),
        ).cause
        for kernel in ("5.10", "6.18")
    ]

    assert ["the MTU of eth0, 9000, is too large" in cause for cause in causes] == [True, False]


def test_a_kernel_does_not_refuse_for_what_it_does_not_have_yet() -> None:
    of = interface("r8169")
    causes = [
        explain(errno.EBUSY, None, of, Mode.NATIVE, seen=observation(of, kernel=kernel)).cause
        for kernel in ("5.10", "6.18", "4.18.0-553.el8_10.x86_64")
    ]

    assert ["memory provider" in cause for cause in causes] == [False, True, True]


def test_an_errno_that_nobody_knows_is_called_unknown() -> None:
    assert explain(errno.EXFULL, None, interface(), Mode.NATIVE) == (UNKNOWN, None)


# The documentation


def sample(wordings: tuple[str, ...]) -> str:
    """Return a wording with the names that documentation uses."""
    words = {
        "name": "IFACE",
        "dev": "IFACE",
        "index": "N",
        "driver": "the driver",
        "enter": "",
        "status": "`xdpkit status IFACE`",
        "other": "the other",
        "generic": "attach in generic mode",
        "frags": "xdp.frags",
        "peer": "PEER",
        "fits": "N",
        "sysfs": "/sys/class/net/IFACE",
        "rx": "N",
        "half": "N",
        "pairs": "N",
        "wanted": "N",
        "merging": "rx-lro off",
    }
    for wording in wordings:
        fields = {name for _, name, _, _ in Formatter().parse(wording) if name}
        if fields <= set(words):
            return wording.format_map(words)
    raise AssertionError(wordings)


def tables() -> str:
    causes: dict[str, Cause] = {r.cause.name: r.cause for r in catalogue.refusals()}
    lines = [TABLES, "| cause | in words | what helps |", "|---|---|---|"]
    for name in CATALOGUE["causes"]:
        cause = causes[name]
        remedies = "; or ".join(map(sample, cause.remedies)) or "–"
        lines.append(f"| {name} | {sample(cause.says)} | {remedies} |")
    lines += ["", "## Texts", "", "| text | of | errno | cause | Linux | in |"]
    lines += ["|---|---|---|---|---|---|"]
    for entry in CATALOGUE["refusals"]:
        if "text" in entry:
            where = "kernel log" if entry.get("log") else "extack"
            releases = (
                f"{entry['since']} to {entry['until']}" if "until" in entry else entry["since"]
            )
            lines.append(
                f"| `{entry['text']}` | {entry.get('driver') or entry['source']} |"
                f" {entry.get('errno', '–')} | {entry['cause']} | {releases} | {where} |"
            )
    lines += ["", "## Without a text", "", "| errno | of | at | mode | by | cause |"]
    lines += ["|---|---|---|---|---|---|"]
    for entry in CATALOGUE["refusals"]:
        if "text" not in entry:
            lines.append(
                f"| {entry['errno']} | {entry.get('driver') or entry['source']} |"
                f" {', '.join(entry.get('verbs', ('attach', 'replace')))} |"
                f" {', '.join(entry.get('modes', ('any',)))} | {entry.get('via', 'any')} |"
                f" {entry['cause']} |"
            )
    return "\n".join(lines) + "\n"


@pytest.mark.golden
def test_the_documentation_has_the_whole_catalogue(request: pytest.FixtureRequest) -> None:
    introduction, _, _ = DOCUMENT.read_text().partition(TABLES)
    if request.config.getoption("--bless"):
        DOCUMENT.write_text(introduction + tables())

    assert introduction + tables() == DOCUMENT.read_text(), "if it is meant so: make bless"
