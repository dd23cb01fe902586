# SPDX-License-Identifier: Apache-2.0
"""Which program type a section's name stands for; the names are libbpf's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdpkit.uapi.bpf import AttachType, ProgFlags, ProgType


@dataclass(frozen=True, slots=True)
class SectionKind:
    """What a section's programs are; see :class:`~xdpkit.obj.spec.ProgramSpec`."""

    type: ProgType
    attach_type: AttachType
    flags: ProgFlags = ProgFlags(0)
    attach_to: str | None = None


_FRAGS = ProgFlags.XDP_HAS_FRAGS

_EXACT = {
    "xdp": SectionKind(ProgType.XDP, AttachType.XDP),
    "xdp.frags": SectionKind(ProgType.XDP, AttachType.XDP, _FRAGS),
    "xdp/devmap": SectionKind(ProgType.XDP, AttachType.XDP_DEVMAP),
    "xdp.frags/devmap": SectionKind(ProgType.XDP, AttachType.XDP_DEVMAP, _FRAGS),
    "xdp/cpumap": SectionKind(ProgType.XDP, AttachType.XDP_CPUMAP),
    "xdp.frags/cpumap": SectionKind(ProgType.XDP, AttachType.XDP_CPUMAP, _FRAGS),
}

# The kernel reads no expected attach type for raw tracepoints; 0 is what libbpf gives.
_PREFIXED = {
    "tp_btf": SectionKind(ProgType.TRACING, AttachType.TRACE_RAW_TP),
    "raw_tp": SectionKind(ProgType.RAW_TRACEPOINT, AttachType(0)),
    "raw_tracepoint": SectionKind(ProgType.RAW_TRACEPOINT, AttachType(0)),
}


def section_kind(section: str) -> SectionKind | None:
    """Return what the programs of a section are, None for a kind that xdpkit leaves alone.

    A leading ``?`` means that the program is only loaded when asked for by name.
    """
    name = section.removeprefix("?")
    prefix, _, rest = name.partition("/")
    if name in _EXACT:
        return _EXACT[name]
    if prefix in _PREFIXED and rest:
        return replace(_PREFIXED[prefix], attach_to=rest)
    return None
