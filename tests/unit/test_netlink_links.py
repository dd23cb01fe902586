# SPDX-License-Identifier: Apache-2.0
"""Interfaces in rtnetlink: what is asked and set, and what is understood of the answer."""

from __future__ import annotations

import contextlib
import errno
import struct
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.errors import KernelRefused
from xdpkit.syscalls.netlink import Message, decode_attributes, encode_attribute, encode_nested
from xdpkit.syscalls.rtnetlink import (
    NO_PROGRAM,
    LinkInfo,
    XdpIds,
    decode_link,
    decode_xdp,
    encode_selector,
    encode_set_xdp,
    find_links,
)
from xdpkit.uapi.if_link import Ifla, IflaInfo, IflaXdp, RouteMessage, XdpAttached, XdpFlags

HEADER = struct.Struct("=BxHiII")


@contextlib.contextmanager
def bad_messages_are_fine() -> Iterator[None]:
    """Let EBADMSG pass, and nothing else."""
    try:
        yield
    except KernelRefused as error:
        if error.errno != errno.EBADMSG:
            raise


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


def xdp(attached: XdpAttached, **ids: int) -> bytes:
    """The inside of an IFLA_XDP attribute."""
    data = encode_attribute(IflaXdp.ATTACHED, bytes([attached]))
    return data + b"".join(encode_attribute(IflaXdp[name], u32(id_)) for name, id_ in ids.items())


def test_a_link_is_asked_for_by_index_or_by_name_and_all_of_them_by_neither() -> None:
    by_index = encode_selector(index=7)
    by_name = encode_selector(name="eth0")
    all_of_them = encode_selector()

    assert HEADER.unpack_from(by_index)[2] == 7
    assert decode_attributes(by_name[HEADER.size :])[Ifla.IFNAME] == b"eth0\0"
    assert set(decode_attributes(all_of_them[HEADER.size :])) == {Ifla.EXT_MASK}
    assert encode_selector(statistics=True) == HEADER.pack(0, 0, 0, 0, 0)


def test_a_name_that_is_too_long_for_a_device_is_looked_up_as_an_alternative_one() -> None:
    fits = decode_attributes(encode_selector(name="a" * 15)[HEADER.size :])
    too_long = decode_attributes(encode_selector(name="a" * 16)[HEADER.size :])

    assert Ifla.IFNAME in fits
    assert too_long[Ifla.ALT_IFNAME] == b"a" * 16 + b"\0"


def test_a_link_is_read_with_what_is_attached_to_it() -> None:
    payload = HEADER.pack(0, 1, 12, 0x1043, 0)
    payload += encode_attribute(Ifla.ADDRESS, b"\2\0\0\0\0\1")
    payload += encode_attribute(Ifla.IFNAME, b"veth0\0")
    payload += encode_attribute(Ifla.MTU, u32(1500))
    payload += encode_attribute(Ifla.LINK, u32(11))
    payload += encode_attribute(Ifla.LINK_NETNSID, u32(3))
    payload += encode_attribute(Ifla.NUM_RX_QUEUES, u32(4))
    payload += encode_attribute(Ifla.NUM_TX_QUEUES, u32(2))
    payload += encode_nested(Ifla.LINKINFO, [(IflaInfo.KIND, b"veth\0")])
    payload += encode_nested(
        Ifla.XDP,
        [
            (IflaXdp.ATTACHED, bytes([XdpAttached.DRV])),
            (IflaXdp.PROG_ID, u32(99)),
            (IflaXdp.DRV_PROG_ID, u32(99)),
        ],
    )

    link = decode_link(payload)

    assert (link.index, link.name, link.flags, link.mtu) == (12, "veth0", 0x1043, 1500)
    assert (link.kind, link.rx_queues, link.tx_queues) == ("veth", 4, 2)
    assert (link.peer_index, link.peer_netns_id) == (11, 3)
    assert link.mac == b"\2\0\0\0\0\1"
    assert link.xdp == XdpIds(native=99)


def test_a_link_with_nothing_but_a_header_is_still_a_link() -> None:
    link = decode_link(HEADER.pack(0, 1, 1, 0, 0))

    assert (link.index, link.name, link.kind, link.peer_index) == (1, "", None, None)
    assert not link.xdp


class Interfaces:
    """In the place of a socket: a namespace's interfaces, some of which a list leaves out."""

    def __init__(self, there: set[int], unlisted: set[int]) -> None:
        self.there, self.unlisted = there, unlisted
        self.lists = 0

    def request(self, _kind: int, payload: bytes, *, what: str) -> tuple[Message, ...]:
        index = HEADER.unpack_from(payload)[2]
        if index not in self.there:
            raise KernelRefused(what, errno=errno.ENODEV)
        return (self._told(index),)

    def dump(
        self, _kind: int, _payload: bytes, *, what: str, consistent: bool
    ) -> tuple[Message, ...]:
        assert what
        assert not consistent
        self.lists += 1
        return tuple(self._told(index) for index in self.there - self.unlisted)

    def _told(self, index: int) -> Message:
        return Message(RouteMessage.NEWLINK, 0, 0, 0, HEADER.pack(0, 1, index, 0, 0))


def found_among(there: Interfaces, wanted: set[int]) -> dict[int, LinkInfo]:
    return find_links(there, wanted, what="look")  # type: ignore[arg-type]


def test_a_few_of_many_interfaces_are_found_without_a_list() -> None:
    there = Interfaces(set(range(1, 5000)), set())

    assert found_among(there, {7, 9, 6000}).keys() == {7, 9}
    assert there.lists == 0


def test_many_interfaces_are_found_also_if_the_list_was_interrupted() -> None:
    there = Interfaces(set(range(1, 100)), unlisted={7, 9})
    found = found_among(there, set(range(2, 60)) | {6000})

    assert found.keys() == set(range(2, 60))
    assert {index: link.index for index, link in found.items()} == {each: each for each in found}
    assert there.lists == 1


def test_programs_in_several_modes_are_told_apart() -> None:
    several = decode_xdp(xdp(XdpAttached.MULTI, SKB_PROG_ID=5, HW_PROG_ID=6))

    assert several == XdpIds(generic=5, offload=6)


@pytest.mark.parametrize(
    ("attached", "ids"),
    [
        (XdpAttached.NONE, XdpIds()),
        (XdpAttached.DRV, XdpIds(native=5)),
        (XdpAttached.SKB, XdpIds(generic=5)),
        (XdpAttached.HW, XdpIds(offload=5)),
    ],
)
def test_a_kernel_that_names_one_program_only_says_its_mode_apart(
    attached: XdpAttached, ids: XdpIds
) -> None:
    assert decode_xdp(xdp(attached, PROG_ID=5)) == ids


@given(st.binary(max_size=120))
def test_any_bytes_are_a_link_or_a_bad_message(data: bytes) -> None:
    for payload in (data, HEADER.pack(0, 1, 1, 0, 0) + data):
        with bad_messages_are_fine():
            decode_link(payload)


def test_a_link_shorter_than_its_header_is_refused() -> None:
    with pytest.raises(KernelRefused, match="its header has 3 bytes, not 16"):
        decode_link(b"abc")


def asked(payload: bytes) -> dict[int, bytes]:
    """The inside of the IFLA_XDP attribute of a request, which has nothing else."""
    attributes = decode_attributes(payload[HEADER.size :])
    assert set(attributes) == {Ifla.XDP}
    return decode_attributes(attributes[Ifla.XDP])


@pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are a little-endian machine's")
def test_setting_a_program_is_these_bytes() -> None:
    payload = encode_set_xdp(12, fd=7, flags=XdpFlags.DRV_MODE, expected=5)

    assert payload == bytes.fromhex(
        "00000000 0c000000 00000000 00000000"  # struct ifinfomsg, index 12
        "1c00 2b80"  # IFLA_XDP | NLA_F_NESTED
        "0800 0100 07000000"  # IFLA_XDP_FD
        "0800 0800 05000000"  # IFLA_XDP_EXPECTED_FD
        "0800 0300 14000000"  # IFLA_XDP_FLAGS: XDP_FLAGS_DRV_MODE | XDP_FLAGS_REPLACE
    )


def test_without_an_expected_program_nothing_is_said_of_one() -> None:
    payload = encode_set_xdp(12, fd=7, flags=XdpFlags.SKB_MODE | XdpFlags.UPDATE_IF_NOEXIST)

    assert asked(payload) == {IflaXdp.FD: u32(7), IflaXdp.FLAGS: u32(0b11)}


def test_no_program_is_minus_one_both_as_the_new_and_as_the_expected_one() -> None:
    payload = encode_set_xdp(12, fd=NO_PROGRAM, flags=XdpFlags.HW_MODE, expected=NO_PROGRAM)

    assert asked(payload) == {
        IflaXdp.FD: b"\xff" * 4,
        IflaXdp.EXPECTED_FD: b"\xff" * 4,
        IflaXdp.FLAGS: u32(XdpFlags.HW_MODE | XdpFlags.REPLACE),
    }
