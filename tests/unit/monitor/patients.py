# SPDX-License-Identifier: Apache-2.0
"""Hooks with something the matter, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.unit.monitor.snapshots import INSTALLED
from xdpkit.analysis import Analysis, Reference, Subject, SubjectMap, analyse
from xdpkit.capabilities import Answer, Device, Finding
from xdpkit.hook import (
    AttachedProgram,
    HookStatus,
    Mode,
    Origin,
    Owner,
    ProgramSummary,
    Record,
    StoredRecord,
    Via,
)
from xdpkit.interfaces import Interface
from xdpkit.isa import Instruction, asm
from xdpkit.isa.opcodes import JmpOp, Register
from xdpkit.monitor.complaints.facts import Code, Facts, HookFacts, Member
from xdpkit.monitor.model import Snapshot, Tracepoints
from xdpkit.negotiation import Negotiation, Policy, Verdict
from xdpkit.obj import RelocationKind
from xdpkit.probes.ask import machine_code
from xdpkit.syscalls.rtnetlink import XdpIds
from xdpkit.uapi.bpf import MapType, PseudoSrc

SECOND = 10**9
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR_AGO = round(AT.timestamp() - 3600) * SECOND
NOW = 500 * SECOND
"""CLOCK_MONOTONIC at AT."""

INTERFACE = Interface(
    index=2,
    name="eth0",
    netns=None,
    netns_cookie=4,
    driver="mlx5_core",
    kind=None,
    mtu=1500,
    rx_queues=8,
    tx_queues=8,
    xdp=XdpIds(native=40),
)

DEVICE = Device(
    name="eth0",
    driver="mlx5_core",
    findings={
        name: Finding(name, Answer.YES, "netdev: BASIC set")
        for name in ("mode-native", "action-drop", "action-pass", "action-tx", "redirect-target")
    },
)


def without(capability: str, evidence: str, device: Device = DEVICE) -> Device:
    """Return a device that does not offer something."""
    found = Finding(capability, Answer.NO, evidence)
    return replace(device, findings={**device.findings, capability: found})


def analysed(*code: Instruction, name: str = "firewall", **known: Any) -> Analysis:
    """Return the analysis of a program whose instruction in slot N is of line 10 + N."""
    subject = Subject.from_code(name, machine_code(*code))
    return analyse(replace(subject, line_of=lambda slot: f"fw.c:{10 + slot}", **known))


def returning(*values: int, name: str = "firewall", number: int = 40) -> Code:
    """Return a program that returns one of these, by what the packet is like."""
    code: list[Instruction] = [asm.load(Register.R2, Register.R1, 12, size=4)]
    for value in values[:-1]:
        code += [
            asm.mov(Register.R0, value),
            asm.branch(JmpOp.JNE, Register.R2, value, 1),
            asm.exit(),
        ]
    code += [asm.mov(Register.R0, values[-1]), asm.exit()]
    return Code(number, name, analysed(*code, name=name))


def redirecting(map_name: str = "ports", **fields: Any) -> Code:
    """Return a program that redirects into a devmap, by what the packet is like."""
    analysis = analysed(
        asm.load(Register.R2, Register.R1, 12, size=4),
        asm.ld_imm64(Register.R1, 0, source=PseudoSrc.MAP_FD),
        asm.mov(Register.R3, 0),
        asm.call("redirect_map"),
        asm.exit(),
        references={1: Reference(RelocationKind.MAP, map_name)},
        maps={map_name: SubjectMap(map_name, MapType.DEVMAP, max_entries=4)},
    )
    return Code(40, "firewall", analysis, **fields)


def tail_calling(slot: int, **fields: Any) -> Code:
    """Return a program that tail-calls one slot of an array."""
    analysis = analysed(
        asm.ld_imm64(Register.R2, 0, source=PseudoSrc.MAP_FD),
        asm.mov(Register.R3, slot),
        asm.call("tail_call"),
        asm.mov(Register.R0, 2),
        asm.exit(),
        references={0: Reference(RelocationKind.MAP, "stages")},
        maps={"stages": SubjectMap("stages", MapType.PROG_ARRAY, max_entries=4, programs={})},
    )
    return Code(40, "firewall", analysis, **fields)


def record(name: str = "firewall", **fields: Any) -> StoredRecord:
    given: dict[str, Any] = {
        "program": name,
        "interface": "eth0",
        "ifindex": 2,
        "netns_cookie": 4,
        "mode": Mode.NATIVE,
        "via": Via.LINK,
        "cookie": 0,
        "attached_at": HOUR_AGO,
        "revert_at": 0,
        "reverts_to": 0,
        "origin": Origin("/srv/fw.o", "12" * 32, {}, "default", False, "9.9"),
        "negotiation": None,
    }
    return StoredRecord(Record(**{**given, **fields}), 1, 96, False)


def program(number: int = 40, name: str = "firewall", **fields: Any) -> AttachedProgram:
    given: dict[str, Any] = {
        "mode": Mode.NATIVE,
        "program": ProgramSummary(number, name[:15], "12" * 8, jited=True, loaded_at=AT),
        "via": Via.LINK,
        "link_id": 7,
        "owner": Owner.XDPKIT,
        "pinned": "/sys/fs/bpf/xdpkit/4-2/link",
        "note": None,
        "record": record(name),
    }
    return AttachedProgram(**{**given, **fields})


def negotiated(*verdicts: Verdict, mode: str = "native") -> Negotiation:
    return Negotiation("firewall", "eth0", "live", mode, Policy.DEFAULT, verdicts)


def hook(
    *members: Member, device: Device | None = DEVICE, on_hook: AttachedProgram | None = None
) -> HookFacts:
    """Return an interface's hook; ``on_hook`` is the root where programs run by RX queue."""
    first = on_hook or (members[0].attached if members else None)
    return HookFacts(
        HookStatus(INTERFACE, () if first is None else (first,)), tuple(members), device
    )


def healthy() -> HookFacts:
    return hook(Member(program(), code=(returning(1, 2),)))


def facts(
    *hooks: HookFacts,
    tracepoints: Mapping[str, Any] | None = None,
    snapshot: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Facts:
    """Return what was seen, by default of a machine that is well watched."""
    counted: dict[str, Any] = {
        "taken_at": NOW,
        "installed": replace(INSTALLED, absent=()),
        "tracepoints": Tracepoints(**(tracepoints or {})),
    }
    given: dict[str, Any] = {
        "snapshot": Snapshot(**{**counted, **(snapshot or {})}),
        "at": AT,
        "hooks": hooks,
        "has_jit": True,
    }
    return Facts(**{**given, **fields})
