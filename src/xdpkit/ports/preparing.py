# SPDX-License-Identifier: Apache-2.0
"""Preparing what frames are sent to, and putting it back as it was.

What a port lacks is prepared at the other end of a veth, often in a container's namespace: GRO, or
a program, so that it receives frames at all; and that it finishes checksums, and puts VLAN tags
into frames, itself. A preparation is a value that is written down before it is made. So whoever
undoes it may find that it never was made, that somebody has undone it, or that the interface is
gone: each is as good as undone.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from xdpkit.capabilities import Answer
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.interfaces import veth as veths
from xdpkit.interfaces.interface import Interface, resolve
from xdpkit.interfaces.observation import GRO, Observation
from xdpkit.kernel.folder import DEFAULT_ROOT
from xdpkit.negotiation import Outcome, Verdict
from xdpkit.ports import peers, rights
from xdpkit.ports.peers import End
from xdpkit.syscalls import ethtool, netns
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.tables.model import Identity, Preparation
from xdpkit.uapi.bpf import ProgFlags
from xdpkit.uapi.capability import Capability
from xdpkit.uapi.netdev import XdpAct

if TYPE_CHECKING:
    from xdpkit.hook import Hook
    from xdpkit.obj import ProgramSpec

How = Literal[True, "gro", "program"]

_TARGET = "redirect-target"
_UNFINISHED = ("precondition:checksums", "precondition:segments")
_BESIDE = "precondition:vlan-tags"

# Linux 5.14 (d3256efd8e8b): veth: allow enabling NAPI even without XDP.
_GRO_SINCE = (5, 14)

_ON, _OFF, _COOKIE = "on", "off", "cookie "

_PASS = "pass.o"


def plan(
    interface: Interface, verdicts: Iterable[Verdict], how: How = True
) -> tuple[Preparation, ...]:
    """Return what would make an interface a port; nothing is changed.

    What no preparation helps is left out: negotiate again afterwards.

    Args:
        interface: the interface. verdicts: those of :func:`xdpkit.ports.fitness.negotiate`.
        how: by what its peer is made to receive frames: "gro", "program" (one that lets all packets
            pass), or True: GRO if the kernel has it for a veth, else a program.

    Raises:
        UsageError: the interface is not there any more, or there is no such way.
        RequirementUnmet: what would have to be changed is out of reach.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN, and changing offloads
            CAP_NET_ADMIN.
    """
    what = f"prepare {interface.name} as a port"
    if how not in (True, "gro", "program"):
        raise UsageError(what, cause=f'it is done by "gro" or by "program", not by {how!r}')
    helped = (_TARGET, *_UNFINISHED, _BESIDE)
    asked = [each for each in verdicts if each.requirement.capability in helped]
    lacking = {
        each.requirement.capability for each in asked if each.outcome is not Outcome.ACCEPTED
    }
    is_unknown = any(each.answer is Answer.UNKNOWN for each in asked)
    if interface.kind != veths.KIND or not (lacking or is_unknown):
        return ()
    seen, end = peers.look(interface)
    if end is None:
        rights.require(what, *peers.lacking(seen))
        raise _out_of_reach(what, seen)
    is_by_gro = _TARGET in lacking and how == "gro"
    if is_by_gro and not _has_gro(seen) and not seen.kernel.backports:
        raise RequirementUnmet(
            what,
            cause="in this kernel GRO does not make a veth receive redirected frames (Linux 5.14)",
            remedy="prepare it by a program: --prepare program (prepare='program')",
        )
    planned = tuple(_planned(seen, end, lacking, how))
    if any(each.what != "program" for each in planned):
        rights.require(what, Capability.NET_ADMIN)
    return planned


def apply(preparation: Preparation, *, pin_root: str = DEFAULT_ROOT) -> None:
    """Make a preparation; safe to repeat.

    Args:
        preparation: one that :func:`plan` gave.
        pin_root: the bpffs in which a program's link is pinned.

    Raises:
        UsageError: the interface is not there any more.
        HookBusy: it is to have a program, and has another one.
        RequirementUnmet: it cannot have a program.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel or the driver refused.
    """
    identity, _ = peers.find_again(preparation.on)
    if identity is None:
        raise UsageError(f"prepare {preparation.on.name}", cause="it is not there any more")
    match preparation.what:
        case "program":
            _attach(identity, _cookie(preparation), pin_root)
        case "gro":
            _give_gro(identity)
        case "tx-checksum" | "tx-vlan":
            _switch(identity, dict.fromkeys(_names(preparation), False))


def require_undoable(preparations: Iterable[Preparation], what: str) -> None:
    """Refuse to begin to undo preparations, if a capability is missing for the end.

    Args:
        preparations: those that were made, perhaps. what: what is being tried, for errors.

    Raises:
        MissingPrivilege: a capability is missing.
    """
    for each in preparations:
        if _is_switched_back(each):
            rights.require(what, Capability.NET_ADMIN)
        _require_reach(each.on, what)


def undo(preparation: Preparation, *, pin_root: str = DEFAULT_ROOT) -> str | None:
    """Put back what a preparation changed, if it is still so; safe to repeat.

    Returns None when nothing of it is left, else why something may be, as a sentence.

    Args:
        preparation: one that was made, perhaps. pin_root: as it was for :func:`apply`.

    Raises:
        HookBusy: another process holds the lock on the pins.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel or the driver refused.
    """
    identity, unseen = peers.find_again(preparation.on)
    if identity is None:
        if not unseen:
            return None
        _require_reach(preparation.on, f"undo what was prepared: {describe(preparation)}")
        return (
            f"{preparation.on.name} was not found, but may be in a network namespace that cannot be"
            f" entered; there it keeps what was prepared: {describe(preparation)}"
        )
    match preparation.what:
        case "program":
            _detach(identity, _cookie(preparation), pin_root)
        case "gro":
            if _is_switched_back(preparation):
                _switch(identity, {GRO: False})
        case "tx-checksum" | "tx-vlan":
            _switch(identity, dict.fromkeys(_names(preparation), True))
    return None


def describe(preparation: Preparation) -> str:
    """Return what a preparation does, as a phrase: "GRO on at veth1"."""
    done = {
        "gro": "GRO on",
        "program": "a program that lets all packets pass",
        "tx-checksum": "checksum offload (tx) off",
        "tx-vlan": "VLAN offload (txvlan) off",
    }
    return f"{done[preparation.what]} at {preparation.on.name}"


def _planned(seen: Observation, end: End, lacking: set[str], how: How) -> Iterator[Preparation]:
    peer = end.identity
    if _TARGET in lacking:
        if how == "program" or (how is True and not _has_gro(seen)):
            yield Preparation("program", peer, f"{_COOKIE}{secrets.randbits(64)}")
        else:
            is_on = seen.peer is not None and bool(seen.peer.gro)
            yield Preparation("gro", peer, _ON if is_on else _OFF)
    unfinished = end.active(*peers.CHECKSUMS)
    if unfinished and not lacking.isdisjoint(_UNFINISHED):
        yield Preparation("tx-checksum", peer, " ".join(unfinished))
    beside = end.active(*peers.VLAN_TAGS)
    if beside and _BESIDE in lacking:
        yield Preparation("tx-vlan", peer, " ".join(beside))


def _has_gro(seen: Observation) -> bool:
    """Whether GRO makes a veth receive frames; who has the netdev family is newer."""
    return seen.netdev is not None or seen.kernel.has(_GRO_SINCE)


def _out_of_reach(what: str, seen: Observation) -> RequirementUnmet:
    if seen.peer is None:
        return RequirementUnmet(what, cause=f"its peer is not known: {seen.peer_unknown}")
    name = seen.peer.link.name
    return RequirementUnmet(
        what,
        cause=f"its peer, {name}, is in a network namespace that no name and no process leads to",
        remedy=f"in that namespace: ethtool -K {shlex.quote(name)} gro on tx off txvlan off",
    )


def _is_switched_back(preparation: Preparation) -> bool:
    """Whether it is undone by switching an offload; GRO may have been on before."""
    match preparation.what:
        case "gro":
            return preparation.before == _OFF
        case what:
            return what != "program"


def _require_reach(identity: Identity, what: str) -> None:
    """Refuse to look for an interface in another namespace without the right to enter it.

    Raises:
        MissingPrivilege: it takes CAP_SYS_ADMIN.
    """
    if identity.netns_cookie != netns.cookie():
        rights.require(what, Capability.SYS_ADMIN)


def _names(preparation: Preparation) -> list[str]:
    return preparation.before.split()


def _cookie(preparation: Preparation) -> int:
    try:
        return int(preparation.before.removeprefix(_COOKIE))
    except ValueError:
        raise UsageError(
            f"find the program on {preparation.on.name}",
            cause=f"its cookie was written down as {preparation.before!r}",
        ) from None


def _switch(identity: Identity, wanted: Mapping[str, bool]) -> None:
    with netns.entered(identity.netns), NetlinkSocket() as route:
        ethtool.set_offloads(route, identity.ifindex, wanted)


def _give_gro(identity: Identity) -> None:
    _switch(identity, {GRO: True})
    if _is_passed_by(identity):
        # GRO that came while the interface was down does not count: veth_set_features() tells the
        # other end only while it is up.
        _switch(identity, {GRO: False})
        _switch(identity, {GRO: True})


def _is_passed_by(identity: Identity) -> bool:
    """Whether the other end is still said to transmit nothing that is redirected to it."""
    _, port = peers.look(resolve(identity.ifindex, netns=identity.netns))
    if port is None:
        return False
    seen, _ = peers.look(resolve(port.identity.ifindex, netns=port.identity.netns))
    return seen.netdev is not None and not seen.netdev.features & XdpAct.NDO_XMIT


def _attach(identity: Identity, cookie: int, pin_root: str) -> None:
    hook = _hook(identity, pin_root)
    if _attached_by(hook, cookie) is None:
        hook.add(_pass(), cookie=cookie).close()


def _pass() -> ProgramSpec:
    from xdpkit.kernel import shipped
    from xdpkit.obj import read
    from xdpkit.probes import is_absent

    (spec,) = read(shipped.path(_PASS)).programs.values()
    if not is_absent("xdp-frags"):
        return spec
    # Before Linux 5.18. The object is what is loaded from.
    plain = replace(spec, flags=spec.flags & ~ProgFlags.XDP_HAS_FRAGS)
    return replace(plain, object=replace(spec.object, programs={spec.name: plain}))


def _detach(identity: Identity, cookie: int, pin_root: str) -> None:
    hook = _hook(identity, pin_root)
    number = _attached_by(hook, cookie)
    if number is not None:
        hook.delete(expected=number)


def _hook(identity: Identity, pin_root: str) -> Hook:
    from xdpkit.hook import Hook

    return Hook(identity.ifindex, netns=identity.netns, pin_root=pin_root)


def _attached_by(hook: Hook, cookie: int) -> int | None:
    """Return the id of the program that was attached with a cookie, if it is still there."""
    for each in hook.status().attached:
        if each.record is not None and each.record.record.cookie == cookie:
            return each.program.id
    return None
