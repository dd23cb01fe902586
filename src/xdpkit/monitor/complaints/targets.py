# SPDX-License-Identifier: Apache-2.0
"""What is wrong now with the targets of redirects that failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdpkit.capabilities import Answer
from xdpkit.monitor.complaints.facts import Facts, TargetState
from xdpkit.monitor.layout import INDEX_ALL
from xdpkit.monitor.model import RedirectErrorCount
from xdpkit.negotiation.targets import peer_remedy

# xdp_do_redirect() in net/core/filter.c, and xdp_ok_fwd_dev() in include/linux/filter.h. The others
# are about the frame, or about what is full.
_OF_TARGETS = frozenset({"EINVAL", "ENOENT", "ENETDOWN", "ENXIO", "EOPNOTSUPP", "EMSGSIZE"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a target now.

    Attributes:
        kind: a word for it. text: as a phrase.
        errors: the errnos with which redirects fail then.
        remedy: what helps.
    """

    kind: str
    text: str
    errors: tuple[str, ...]
    remedy: str | None = None


def troubles(facts: Facts, error: RedirectErrorCount) -> tuple[Trouble, ...] | None:
    """Return what is wrong with a target now, what explains the error first.

    None where its state is not known, or cannot be why redirects failed in this way.
    """
    target = error.target
    if target.index == INDEX_ALL:
        return _of_broadcast(facts, error)
    state = facts.targets.get((target.ifindex, target.map_id, target.index))
    if state is None or error.error not in _OF_TARGETS:
        return None
    found = sorted(_troubles(facts, error, state), key=lambda each: error.error not in each.errors)
    # Of an interface that could not be looked at, as in another namespace, nothing is known.
    return tuple(found) if found or state.device is not None else None


def _of_broadcast(facts: Facts, error: RedirectErrorCount) -> tuple[Trouble, ...] | None:
    """Return which ports a broadcast fails at now; None where it is by no table's map."""
    target = error.target
    table = facts.table_of(target.map_id)
    if table is None or error.error not in _OF_TARGETS:
        return None
    return tuple(
        Trouble(
            f"port-{trouble.kind}",
            f"port {port.number} of {table.name}: {trouble.text}",
            (error.error,),
            facts.ip_link_set(port.where.interface, "up")
            if trouble.kind == "down" and port.where is not None and not port.where.netns
            else None,
        )
        for port in table.ports
        for trouble in port.troubles
        if port.number in table.maps[target.map_id] and trouble.counted == error.error
    )


def _troubles(facts: Facts, error: RedirectErrorCount, state: TargetState) -> Iterator[Trouble]:
    target, device, hook = error.target, state.device, facts.hook_at(error.where)
    if state.has_entry is False:
        text = f"the map with id {target.map_id} has no entry {target.index}"
        yield Trouble("no-entry", text, ("EINVAL", "ENOENT"))
    if state.is_gone:
        text = f"there is no interface with index {target.ifindex}"
        yield Trouble("gone", text, ("EINVAL",))
    if device is None:
        return
    if state.is_up is False:
        command = facts.ip_link_set(device.name, "up")
        yield Trouble("down", f"{device.name} is down", ("ENETDOWN", "ENXIO"), command)
    transmits = device.finding("redirect-target")
    if transmits.answer is Answer.NO and (hook is None or not hook.is_generic):
        text = f"{device.name} takes no redirected frames ({transmits.evidence})"
        yield Trouble("no-transmission", text, ("EOPNOTSUPP", "ENXIO"), peer_remedy(device))
    wanted = hook.status.interface.mtu if hook is not None else 0
    if error.error == "EMSGSIZE" and device.mtu < wanted:
        yield Trouble(
            "mtu",
            f"the MTU of {device.name} is {device.mtu}, that of {error.where.interface} {wanted}",
            ("EMSGSIZE",),
            facts.ip_link_set(device.name, "mtu", str(wanted)),
        )
