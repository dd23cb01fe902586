# SPDX-License-Identifier: Apache-2.0
"""What the analysis of a program says that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpkit.capabilities import CAPABILITIES, action_capability
from xdpkit.requirements.context import fields_of, tables_of
from xdpkit.requirements.declared import declared
from xdpkit.requirements.requirement import Origin, Requirement, Requirements, in_order
from xdpkit.uapi.bpf import MapType, ProgFlags
from xdpkit.uapi.helpers import HELPERS

if TYPE_CHECKING:
    from xdpkit.analysis import Analysis, Redirect
    from xdpkit.analysis import Origin as Found
    from xdpkit.obj import ProgramSpec

_REDIRECTS = {
    MapType.DEVMAP: "redirect-devmap",
    MapType.DEVMAP_HASH: "redirect-devmap",
    MapType.CPUMAP: "redirect-cpumap",
    MapType.XSKMAP: "redirect-xskmap",
}
_DEVMAPS = (MapType.DEVMAP, MapType.DEVMAP_HASH)
_BROADCAST = 8  # BPF_F_BROADCAST
_HINTS = {
    "bpf_xdp_metadata_rx_timestamp": "rx-timestamp",
    "bpf_xdp_metadata_rx_hash": "rx-hash",
    "bpf_xdp_metadata_rx_vlan_tag": "rx-vlan",
}


def requirements_of(
    analysis: Analysis,
    spec: ProgramSpec,
    *,
    callees: Sequence[tuple[Analysis, ProgramSpec]] = (),
) -> Requirements:
    """Return what a program needs: found in its instructions, and declared in its object.

    Args:
        analysis: of the program.
        spec: the program.
        callees: programs that it can tail-call, with their analyses. What they return is in the
            caller's analysis already.

    Raises:
        ObjectFormatError: the declarations are malformed.
    """
    found = list(_actions(analysis, spec))
    for each, program in ((analysis, spec), *callees):
        found += _uses(each, program)
    if spec.flags & ProgFlags.XDP_HAS_FRAGS:
        found.append(Requirement("frags", optional=True))
    items, notes = _with_declared(_merged(found), declared(spec))
    unclear = sorted({note for each, _ in callees for note in each.notes} - {*analysis.notes})
    return Requirements(
        spec.name,
        in_order(items, CAPABILITIES),
        (*notes, *analysis.notes, *unclear),
    )


def _actions(analysis: Analysis, spec: ProgramSpec) -> Iterator[Requirement]:
    for value, origins in analysis.actions.origins.items():
        name = action_capability(value) or f"action-code:{value}"
        yield Requirement(name, _origins(spec, origins))
    unknown = analysis.actions.unknown
    if unknown:
        causes = ", ".join(dict.fromkeys(str(each.cause) for each in unknown))
        yield Requirement(
            "action-any",
            _origins(spec, (each.origin for each in unknown)),
            detail=f"({causes})",
        )


def _uses(analysis: Analysis, spec: ProgramSpec) -> Iterator[Requirement]:
    if analysis.packet_writes:
        yield Requirement("packet-write", _origins(spec, analysis.packet_writes))
    yield from _adjustments(analysis, spec)
    yield from _redirects(analysis, spec)
    for number, origins in analysis.helpers.items():
        if 0 < number < len(HELPERS):
            yield Requirement(f"helper:{HELPERS[number]}", _origins(spec, origins))
    weak = {extern.kernel_name for extern in spec.object.externs.values() if extern.is_weak}
    for name, origins in analysis.kfuncs.items():
        if name in _HINTS:
            yield Requirement(_HINTS[name], _origins(spec, origins), optional=name in weak)
        yield Requirement(f"kfunc:{name}", _origins(spec, origins), optional=name in weak)
    for kind, origins in analysis.map_types.items():
        if kind in set(MapType):
            name = MapType(kind).name.lower()
            yield Requirement(f"map-type:{name}", _origins(spec, origins))
    for capability, origins in (*fields_of(analysis, spec), *tables_of(analysis)):
        yield Requirement(capability, _origins(spec, origins))


def _adjustments(analysis: Analysis, spec: ProgramSpec) -> Iterator[Requirement]:
    for adjustment in analysis.adjustments:
        origins = _origins(spec, adjustment.origins)
        if adjustment.place != "tail":
            yield Requirement(f"adjust-{adjustment.place}", origins)
            continue
        if adjustment.shrinks:
            yield Requirement("adjust-tail-shrink", origins)
        if adjustment.grows:
            yield Requirement("adjust-tail-grow", origins)


def _redirects(analysis: Analysis, spec: ProgramSpec) -> Iterator[Requirement]:
    for redirect in analysis.redirects:
        origins = _origins(spec, (redirect.origin,))
        if redirect.maps is None:
            for ifindex in sorted(redirect.targets) if redirect.targets is not None else (None,):
                detail = f"with index {ifindex}" if ifindex is not None else ""
                yield Requirement("redirect-ifindex", origins, detail=detail, ifindex=ifindex)
        for name in redirect.maps or ():
            found = spec.object.maps.get(name)
            if found is not None and found.type in _REDIRECTS:
                capability = _REDIRECTS[MapType(found.type)]
                yield Requirement(capability, origins, detail=name, map=name)
                if found.type in _DEVMAPS and _is_broadcast(redirect):
                    yield Requirement("redirect-broadcast", origins)


def _is_broadcast(redirect: Redirect) -> bool:
    return any(flags & _BROADCAST for flags in redirect.flags or ())


def _merged(items: Iterable[Requirement]) -> Iterator[Requirement]:
    """Yield requirements with equal ones made one: their origins joined, optional if all are."""
    merged: dict[tuple[str, str | None, int | None], Requirement] = {}
    for item in items:
        key = (item.capability, item.map, item.ifindex)
        known = merged.get(key)
        merged[key] = (
            item
            if known is None
            else replace(
                known,
                origins=tuple(dict.fromkeys((*known.origins, *item.origins))),
                optional=known.optional and item.optional,
            )
        )
    yield from merged.values()


def _with_declared(
    found: Iterator[Requirement], declarations: tuple[Requirement, ...]
) -> tuple[list[Requirement], list[str]]:
    """Return what was found, marked and completed by what is declared, and notes on the rest."""
    promises = {each.capability: each for each in declarations}
    declares_actions = any(name.startswith("action-") for name in promises)
    items = [_marked(item, promises.get(item.capability), declares_actions) for item in found]
    present = {item.capability for item in items}
    missing = [each for each in declarations if each.capability not in present]
    # What a map or a packet decides cannot be found: that is what declarations are for.
    excused = "action-any" in present
    notes = [
        f"declares {each.capability}, which was not found in the instructions"
        for each in missing
        if not (excused and each.capability.startswith("action-"))
    ]
    return [*items, *missing], notes


def _marked(item: Requirement, promise: Requirement | None, declares_actions: bool) -> Requirement:
    if item.capability == "action-any":
        return replace(item, optional=declares_actions)
    if promise is None:
        return item
    return replace(item, declared=True, optional=item.optional or promise.optional)


def _origins(spec: ProgramSpec, found: Iterable[Found]) -> tuple[Origin, ...]:
    return tuple(
        Origin(spec.name, origin.slot, origin.function, origin.line)
        for origin in sorted(found, key=lambda origin: origin.slot)
    )
