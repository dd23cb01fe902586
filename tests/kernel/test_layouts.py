# SPDX-License-Identifier: Apache-2.0
"""The layouts that bpf(2) takes, compared with the running kernel's own description of them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from xdpkit.btf import Btf, Kind, types
from xdpkit.kernel.btf import vmlinux
from xdpkit.uapi import attr

# Our class, the kernel's type, and within it the member that is meant, or a field by which to find
# an anonymous one.
_LAYOUTS = [
    (attr.MapCreate, "bpf_attr", "map_type"),
    (attr.MapElement, "bpf_attr", "key"),
    (attr.MapBatch, "bpf_attr", "batch"),
    (attr.ProgLoad, "bpf_attr", "prog_type"),
    (attr.ObjPin, "bpf_attr", "pathname"),
    (attr.TestRun, "bpf_attr", "test"),
    (attr.GetId, "bpf_attr", "start_id"),
    (attr.GetInfo, "bpf_attr", "info"),
    (attr.RawTracepointOpen, "bpf_attr", "raw_tracepoint"),
    (attr.BtfLoad, "bpf_attr", "btf"),
    (attr.LinkCreate, "bpf_attr", "link_create"),
    (attr.LinkUpdate, "bpf_attr", "link_update"),
    (attr.LinkDetach, "bpf_attr", "link_detach"),
    (attr.EnableStats, "bpf_attr", "enable_stats"),
    (attr.ProgBindMap, "bpf_attr", "prog_bind_map"),
    (attr.ProgInfo, "bpf_prog_info", None),
    (attr.MapInfo, "bpf_map_info", None),
    (attr.BtfInfo, "bpf_btf_info", None),
    (attr.LinkInfo, "bpf_link_info", None),
    (attr.RawTracepointLinkInfo, "bpf_link_info", "raw_tracepoint"),
    (attr.TracingLinkInfo, "bpf_link_info", "tracing"),
    (attr.XdpLinkInfo, "bpf_link_info", "xdp"),
    (attr.XdpMd, "xdp_md", None),
]


# Linux 5.11 gave this place a second name.
_OLD_NAMES = {"attach_btf_obj_fd": "attach_prog_fd"}


@pytest.mark.parametrize(
    ("ours", "kernel_type", "within"), _LAYOUTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_every_field_is_where_the_kernel_has_it(
    ours: type[ctypes.Structure], kernel_type: str, within: str | None
) -> None:
    btf = vmlinux()
    theirs = {
        name: (offset, size)
        for name, offset, size in _fields(btf, *_find(btf, kernel_type, within))
    }
    if kernel_type == "bpf_link_info" and within:
        theirs |= {name: (offset, size) for name, offset, size in _common_link_fields(btf)}
    end = max(offset + size for offset, size in theirs.values())
    for name, *rest in ours._fields_:
        if name.startswith("_"):
            continue
        place = getattr(ours, name)
        size = place.size if len(rest) == 1 else 4
        # What this kernel does not have yet can only have been added at the end.
        known = theirs.get(name) or theirs.get(_OLD_NAMES.get(name, ""))
        assert known == (place.offset, size) if known else place.offset >= end, name


def test_a_structure_ends_at_its_last_field() -> None:
    # A padded end would be bytes that a kernel may give a meaning to.
    for ours, *_ in _LAYOUTS:
        last = getattr(ours, ours._fields_[-1][0])
        assert ctypes.sizeof(ours) - (last.offset + last.size) < 8


def _find(btf: Btf, name: str, within: str | None) -> tuple[int, int]:
    """Return the id of the structure that is meant, and where it begins."""
    (outer,) = btf.find(name, Kind.STRUCT, Kind.UNION)
    if within is None:
        return outer, 0
    for member in _members(btf, outer):
        at = member.bit_offset // 8
        if member.name == within:
            return btf.strip(member.type_id), at
        if member.name:
            continue
        for inner in _members(btf, member.type_id):
            if inner.name == within and btf.kind(btf.strip(inner.type_id)) is Kind.STRUCT:
                return btf.strip(inner.type_id), at + inner.bit_offset // 8
        if any(within == found for found, *_ in _fields(btf, member.type_id, 0)):
            return btf.strip(member.type_id), at
    raise AssertionError(f"{name} has no {within}")


def _common_link_fields(btf: Btf) -> Iterator[tuple[str, int, int]]:
    (outer,) = btf.find("bpf_link_info", Kind.STRUCT)
    for member in _members(btf, outer):
        if member.name:
            yield member.name, member.bit_offset // 8, btf.sizeof(member.type_id)


def _fields(btf: Btf, type_id: int, base: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each field, those of anonymous members among them."""
    for member in _members(btf, type_id):
        offset = base + member.bit_offset // 8
        if member.name:
            yield member.name, offset, btf.sizeof(member.type_id)
        else:
            yield from _fields(btf, member.type_id, offset)


def _members(btf: Btf, type_id: int) -> tuple[types.Member, ...]:
    found = btf[btf.strip(type_id)]
    assert isinstance(found, types.Struct | types.Union)
    return found.members
