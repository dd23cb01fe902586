# SPDX-License-Identifier: Apache-2.0
"""Generic netlink and the netdev family: bytes to values, and what is no message."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.errors import KernelRefused
from xdpkit.syscalls import genetlink, netdev
from xdpkit.syscalls.genetlink import Family, decode_family, decode_payload, encode_payload
from xdpkit.syscalls.netdev import NetdevInfo, decode_device
from xdpkit.syscalls.netlink import NetlinkSocket, encode_attribute, encode_nested
from xdpkit.uapi.genetlink import CtrlAttribute, CtrlGroupAttribute
from xdpkit.uapi.netdev import NetdevAttribute, NetdevCommand, XdpAct, XdpRxMetadata, XskFlags


def u32(kind: int, value: int) -> bytes:
    return encode_attribute(kind, struct.pack("=I", value))


def u64(kind: int, value: int) -> bytes:
    return encode_attribute(kind, struct.pack("=Q", value))


def family(*attributes: bytes) -> bytes:
    return encode_payload(1, 2, b"".join(attributes))


def device(*attributes: bytes) -> bytes:
    return encode_payload(NetdevCommand.DEV_GET, 1, b"".join(attributes))


@contextlib.contextmanager
def bad_messages_are_fine() -> Iterator[None]:
    """Let EBADMSG pass, and nothing else."""
    try:
        yield
    except KernelRefused as error:
        if error.errno != errno.EBADMSG:
            raise


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=20))
def test_a_payload_survives_encoding_and_decoding(command: int, version: int, value: bytes) -> None:
    payload = encode_payload(command, version, encode_attribute(7, value))

    assert decode_payload(payload) == (command, {7: value})


def test_a_family_has_a_number_and_groups() -> None:
    group = [(CtrlGroupAttribute.NAME, b"mgmt\0"), (CtrlGroupAttribute.ID, struct.pack("=I", 4))]
    message = family(
        encode_attribute(CtrlAttribute.FAMILY_ID, struct.pack("=H", 20)),
        u32(CtrlAttribute.VERSION, 1),
        encode_attribute(CtrlAttribute.MCAST_GROUPS, encode_nested(1, group)),
    )

    assert decode_family(message) == Family(20, 1, {"mgmt": 4})


def test_a_family_without_a_number_is_no_answer() -> None:
    with pytest.raises(KernelRefused, match="no family number") as caught:
        decode_family(family())
    assert caught.value.errno == errno.EBADMSG


def test_a_device_tells_its_features() -> None:
    message = device(
        u32(NetdevAttribute.IFINDEX, 3),
        u64(NetdevAttribute.XDP_FEATURES, 0x2B),
        u32(NetdevAttribute.XDP_ZC_MAX_SEGS, 8),
        u64(NetdevAttribute.XDP_RX_METADATA_FEATURES, 0x5),
        u64(NetdevAttribute.XSK_FEATURES, 0x2),
    )

    assert decode_device(message) == NetdevInfo(
        index=3,
        features=XdpAct.BASIC | XdpAct.REDIRECT | XdpAct.XSK_ZEROCOPY | XdpAct.RX_SG,
        zc_max_segs=8,
        rx_metadata=XdpRxMetadata.TIMESTAMP | XdpRxMetadata.VLAN_TAG,
        xsk=XskFlags.TX_CHECKSUM,
    )


def test_what_an_older_kernel_does_not_say_is_none_and_not_zero() -> None:
    message = device(u32(NetdevAttribute.IFINDEX, 3), u64(NetdevAttribute.XDP_FEATURES, 0))

    assert decode_device(message) == NetdevInfo(3, XdpAct(0), None, None, None)


def test_bits_of_a_newer_kernel_are_kept() -> None:
    message = device(
        u32(NetdevAttribute.IFINDEX, 3), u64(NetdevAttribute.XDP_FEATURES, 1 << 40 | 1)
    )

    assert XdpAct.BASIC in decode_device(message).features


def test_a_device_without_a_number_is_no_answer() -> None:
    with pytest.raises(KernelRefused, match="no ifindex"):
        decode_device(device())


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for decode in (decode_payload, decode_family, decode_device):
        with bad_messages_are_fine():
            decode(data)


def test_the_number_of_the_netdev_family_is_asked_for_until_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([None, Family(31, 1)])
    monkeypatch.setattr(netdev, "_known", {})
    monkeypatch.setattr(genetlink, "find_family", lambda *_: next(answers))
    connection = cast(NetlinkSocket, None)

    assert netdev.find_family(connection) is None
    assert netdev.find_family(connection) == Family(31, 1)
    assert netdev.find_family(connection) == Family(31, 1)
