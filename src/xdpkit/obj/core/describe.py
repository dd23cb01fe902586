# SPDX-License-Identifier: Apache-2.0
"""CO-RE relocations in words: ``FIELD_BYTE_OFFSET of struct sk_buff.len (0:6)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpkit.btf import Btf, Kind
from xdpkit.errors import ObjectFormatError
from xdpkit.obj.core.access import SUBJECTS, Step, Subject, Unfit, parse
from xdpkit.uapi.bpf import CoreReloKind

if TYPE_CHECKING:
    from xdpkit.obj.spec import CoreRelocation

_KEYWORDS = {
    Kind.STRUCT: "struct ",
    Kind.UNION: "union ",
    Kind.ENUM: "enum ",
    Kind.ENUM64: "enum ",
    Kind.FWD: "forward ",
}
_MAX_ACCESS = 64


def describe(relocation: CoreRelocation, local: Btf) -> str:
    """Return what a relocation asks, readable for people; never fails.

    Of a malformed relocation, as much as can be read is told.
    """
    try:
        kind = CoreReloKind(relocation.kind)
    except ValueError:
        return f"kind {relocation.kind} of type {relocation.type_id}"
    text = relocation.access
    if len(text) > _MAX_ACCESS:
        text = f"{text[:_MAX_ACCESS]}…"
    try:
        root = _root(local, relocation.type_id)
    except ObjectFormatError:
        return f"{kind.name} of type {relocation.type_id} ({text})"
    subject = SUBJECTS[kind]
    if subject is Subject.TYPE:
        return f"{kind.name} of {root}"
    try:
        steps = parse(local, relocation.type_id, relocation.access, subject).steps
    except (ObjectFormatError, Unfit):
        return f"{kind.name} of {root} ({text})"
    if subject is Subject.ENUMERATOR:
        return f"{kind.name} of {root}::{steps[0].name} ({text})"
    return f"{kind.name} of {root}{_path(steps)} ({text})"


def _root(btf: Btf, type_id: int) -> str:
    name = btf.name(type_id) or "(anonymous)"
    return f"{_KEYWORDS.get(btf.kind(type_id), '')}{name}"


def _path(steps: tuple[Step, ...]) -> str:
    first, *rest = steps
    begin = f"[{first.index}]" if first.index else ""
    return begin + "".join(
        f"[{step.index}]" if step.name is None else f".{step.name}" for step in rest
    )
