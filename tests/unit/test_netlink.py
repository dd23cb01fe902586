# SPDX-License-Identifier: Apache-2.0
"""The netlink codec: bytes to values and back, and what is no message."""

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
from xdpkit.syscalls.netlink import (
    Acknowledgement,
    Message,
    decode_acknowledgement,
    decode_attributes,
    decode_messages,
    decode_number,
    decode_text,
    encode_attribute,
    encode_message,
    encode_nested,
)
from xdpkit.uapi.netlink import NLA_F_NESTED, ErrorAttribute, MessageFlags, MessageType

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
messages = st.builds(
    Message, type=u16, flags=u16, sequence=u32, port=u32, payload=st.binary(max_size=40)
)
attribute_lists = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20), max_size=8)


@contextlib.contextmanager
def bad_messages_are_fine() -> Iterator[None]:
    """Let EBADMSG pass, and nothing else."""
    try:
        yield
    except KernelRefused as error:
        if error.errno != errno.EBADMSG:
            raise


def acknowledgement(
    number: int,
    *,
    request: bytes = b"",
    flags: int = 0,
    text: str | None = None,
    offset: int | None = None,
) -> Message:
    """An NLMSG_ERROR as the kernel makes it: the errno, the request, the attributes."""
    payload = struct.pack("=i", -number)
    payload += encode_message(Message(18, 5, 7, 0, request))
    if text is not None:
        payload += encode_attribute(ErrorAttribute.MSG, text.encode() + b"\0")
        flags |= MessageFlags.ACK_TLVS
    if offset is not None:
        payload += encode_attribute(ErrorAttribute.OFFS, struct.pack("=I", offset))
        flags |= MessageFlags.ACK_TLVS
    return Message(MessageType.ERROR, flags, 7, 0, payload)


@given(st.lists(messages, max_size=5))
def test_messages_survive_encoding_and_decoding(sent: list[Message]) -> None:
    assert decode_messages(b"".join(map(encode_message, sent))) == tuple(sent)


@given(attribute_lists)
def test_attributes_survive_encoding_and_decoding(sent: dict[int, bytes]) -> None:
    data = b"".join(encode_attribute(kind, value) for kind, value in sent.items())

    assert decode_attributes(data) == sent


@given(attribute_lists)
def test_nested_attributes_are_flagged_and_found_under_their_plain_number(
    inner: dict[int, bytes],
) -> None:
    data = encode_nested(43, inner.items())

    assert struct.unpack_from("=H", data, 2) == (43 | NLA_F_NESTED,)
    assert decode_attributes(decode_attributes(data)[43]) == inner


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_bad_message(data: bytes) -> None:
    with bad_messages_are_fine():
        for message in decode_messages(data):
            decode_attributes(message.payload)
            decode_acknowledgement(message)


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_a_truncated_datagram_never_yields_what_was_not_sent(
    sent: list[Message], data: st.DataObject
) -> None:
    whole = b"".join(map(encode_message, sent))
    cut = whole[: data.draw(st.integers(0, len(whole)))]

    with bad_messages_are_fine():
        received = decode_messages(cut)
        assert received == tuple(sent)[: len(received)]


@pytest.mark.parametrize("length", [0, 1, 15, 17, 0xFFFFFFFF])
def test_a_message_whose_length_is_wrong_is_refused(length: int) -> None:
    with pytest.raises(KernelRefused, match=r"claims \d+ bytes") as caught:
        decode_messages(struct.pack("=IHHII", length, 16, 0, 1, 0))

    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_whose_length_is_wrong_is_refused(length: int) -> None:
    with pytest.raises(KernelRefused, match=r"attribute 3 claims \d+ bytes"):
        decode_attributes(struct.pack("=HH", length, 3) + bytes(4))


def test_padding_behind_the_last_attribute_is_no_attribute() -> None:
    assert decode_attributes(encode_attribute(3, b"lo\0\0") + bytes(3)) == {3: b"lo\0\0"}


def test_text_ends_at_its_nul_and_shows_bytes_that_are_no_text() -> None:
    assert decode_text(b"eth0\0junk") == "eth0"
    assert decode_text(b"\xff\xfeth") == r"\xff\xfeth"


def test_numbers_come_in_four_sizes() -> None:
    assert [decode_number((7).to_bytes(size, sys.byteorder)) for size in (1, 2, 4, 8)] == [7] * 4
    with pytest.raises(KernelRefused, match="a number has 3 bytes"):
        decode_number(bytes(3))


def test_an_acknowledgement_of_success_has_no_errno_and_no_text() -> None:
    assert decode_acknowledgement(acknowledgement(0)) == Acknowledgement(0)


@pytest.mark.parametrize("request_bytes", [b"", b"abcd", b"abcde"])
def test_the_text_is_found_behind_a_request_that_is_repeated_whole(request_bytes: bytes) -> None:
    message = acknowledgement(errno.ERANGE, request=request_bytes, text="too large", offset=36)

    assert decode_acknowledgement(message) == Acknowledgement(errno.ERANGE, "too large", 36)


def test_the_text_is_found_behind_a_request_that_is_capped() -> None:
    capped = acknowledgement(errno.EBUSY, flags=MessageFlags.CAPPED, text="busy")
    # The length of the request stays what it was when the rest of it is left out.
    payload = bytearray(capped.payload)
    struct.pack_into("=I", payload, 4, 500)

    message = Message(capped.type, capped.flags, 7, 0, bytes(payload))

    assert decode_acknowledgement(message) == Acknowledgement(errno.EBUSY, "busy")


def test_text_without_the_flag_that_announces_it_is_not_read() -> None:
    message = acknowledgement(errno.EBUSY, text="busy")

    bare = Message(message.type, 0, 7, 0, message.payload)

    assert decode_acknowledgement(bare) == Acknowledgement(errno.EBUSY)


def test_the_end_of_a_dump_carries_its_errno_and_text() -> None:
    text = encode_attribute(ErrorAttribute.MSG, b"no such table\0")
    message = Message(
        MessageType.DONE,
        MessageFlags.ACK_TLVS,
        1,
        0,
        struct.pack("=i", -errno.ENOENT) + text,
    )

    assert decode_acknowledgement(message) == Acknowledgement(errno.ENOENT, "no such table")
    assert decode_acknowledgement(Message(MessageType.DONE, 0, 1, 0, b"")) == Acknowledgement(0)


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (b"\xff\xff", 0),
        (struct.pack("=i", 5), 0),
        (struct.pack("=i", -5), MessageFlags.ACK_TLVS),
        (struct.pack("=iIHHII", -5, 500, 18, 0, 0, 0), MessageFlags.ACK_TLVS),
    ],
    ids=["too short", "positive errno", "no request", "request longer than the message"],
)
def test_a_malformed_acknowledgement_is_refused(payload: bytes, flags: int) -> None:
    with pytest.raises(KernelRefused) as caught:
        decode_acknowledgement(Message(MessageType.ERROR, flags, 1, 0, payload))

    assert caught.value.errno == errno.EBADMSG
