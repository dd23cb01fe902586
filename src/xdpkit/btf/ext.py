# SPDX-License-Identifier: Apache-2.0
"""``.BTF.ext``: functions, source lines and CO-RE relocations, as the compiler wrote them.

Records stay bytes, in the file's byte order: a load patches and copies them, and only people look
at single ones. Source: Documentation/bpf/btf.rst, "The .BTF.ext section".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from xdpkit.btf.wire import ByteOrder, byteorder_of, prefix
from xdpkit.errors import ObjectFormatError

_HEADER_SIZE = 24
_CORE_HEADER_SIZE = 32
_SECTION = ".BTF.ext"


@dataclass(frozen=True, slots=True)
class InfoSection:
    """The records about one ELF section.

    Attributes:
        record_size: bytes of each record; a newer compiler's may be longer than what is known.
        raw: the records; the first word of each is the instruction's offset in bytes.
        count: number of records.
    """

    record_size: int
    raw: bytes
    count: int


@dataclass(frozen=True, slots=True)
class BtfExt:
    """The contents of ``.BTF.ext``; each mapping is by the section name's string offset in .BTF.

    Attributes:
        byteorder: that of the file and of all records.
        func_info: ``struct bpf_func_info`` records: insn_off, type_id.
        line_info: ``struct bpf_line_info`` records: insn_off, file_name_off, line_off, line_col.
        core: ``struct bpf_core_relo`` records: insn_off, type_id, access_str_off, kind.
    """

    byteorder: ByteOrder
    func_info: Mapping[int, InfoSection]
    line_info: Mapping[int, InfoSection]
    core: Mapping[int, InfoSection]

    @classmethod
    def parse(cls, data: bytes, *, file: str | None = None) -> BtfExt:
        """Split the section into its parts.

        Raises:
            ObjectFormatError: a length, record size or count does not fit the bytes.
        """
        raw = bytes(data)
        try:
            return cls._parse(raw)
        except ObjectFormatError as error:
            raise error.located(file=file) from None

    @classmethod
    def _parse(cls, raw: bytes) -> BtfExt:
        byteorder, length = byteorder_of(raw, _SECTION, _HEADER_SIZE)
        known = min(length, _CORE_HEADER_SIZE)
        if any(raw[known:length]):
            raise ObjectFormatError(
                "the header has fields that are unknown", section=_SECTION, offset=known
            )
        fields = struct.unpack_from(f"{prefix(byteorder)}{(known - 8) // 4}I", raw, 8)
        fields += (0,) * (6 - len(fields))
        parts = [
            _parse_part(raw, byteorder, length + start, size, minimum)
            for start, size, minimum in zip(fields[::2], fields[1::2], (8, 16, 16), strict=True)
        ]
        return cls(byteorder, *parts)


def _parse_part(
    raw: bytes, byteorder: ByteOrder, start: int, size: int, minimum: int
) -> Mapping[int, InfoSection]:
    if not size:
        return MappingProxyType({})
    end = start + size
    if start % 4 or size < 4 or end > len(raw):
        raise ObjectFormatError(
            f"records at {start}, {size} bytes, do not fit the section", section=_SECTION, offset=8
        )
    pair = struct.Struct(f"{prefix(byteorder)}II")
    (record_size,) = struct.unpack_from(f"{prefix(byteorder)}I", raw, start)
    if record_size < minimum or record_size % 4:
        raise ObjectFormatError(
            f"records of {record_size} bytes, at least {minimum} are needed",
            section=_SECTION,
            offset=start,
        )
    sections: dict[int, list[bytes]] = {}
    at = start + 4
    while at < end:
        if end - at < pair.size:
            raise ObjectFormatError("the last list is cut off", section=_SECTION, offset=at)
        name, count = pair.unpack_from(raw, at)
        body = at + pair.size
        if not count or count * record_size > end - body:
            raise ObjectFormatError(
                f"a list of {count} records does not fit", section=_SECTION, offset=at
            )
        at = body + count * record_size
        sections.setdefault(name, []).append(raw[body:at])
    joined = {name: b"".join(lists) for name, lists in sections.items()}
    return MappingProxyType(
        {
            name: InfoSection(record_size, records, len(records) // record_size)
            for name, records in joined.items()
        }
    )
