# SPDX-License-Identifier: Apache-2.0
"""Look at everything that complaints are about. Each part may fail by itself, and is said then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from xdpkit.errors import KernelRefused, UsageError, XdpkitError
from xdpkit.hook import readers
from xdpkit.hook.looking import examine
from xdpkit.hook.mode import Mode
from xdpkit.hook.pins import Pins
from xdpkit.hook.settings import are_hidden
from xdpkit.interfaces import Interface, list_all, resolve
from xdpkit.kernel.maps import Map
from xdpkit.monitor.complaints.complaint import listed
from xdpkit.monitor.complaints.facts import (
    Code,
    Facts,
    HookFacts,
    Member,
    RedirectMap,
    TargetState,
)
from xdpkit.monitor.layout import INDEX_ALL
from xdpkit.monitor.model import Snapshot, Target, Tracepoints
from xdpkit.uapi.if_link import IFF_UP

if TYPE_CHECKING:
    from xdpkit.capabilities import Device
    from xdpkit.hook import AttachedProgram, Cleaned, HookStatus
    from xdpkit.hook.reach import Web
    from xdpkit.negotiation import Negotiation, Verdict
    from xdpkit.negotiation import Target as RedirectTarget
    from xdpkit.requirements import Requirement, Requirements

_T = TypeVar("_T")

_MOST = 8
_NOT_COUNTED = "what was counted could not be looked at"

_JIT = Path("/proc/sys/net/core/bpf_jit_enable")

# What verdicts are about beside what the program needs.
_ABOUT_THE_PLACE = ("mode-", "redirect-target", "precondition:")
_OF_THE_KERNEL = ("helper:", "kfunc:", "map-type:", "link", "redirect-broadcast")


def gather(netns: str | None, interfaces: Iterable[str | int] | None, pin_root: str) -> Facts:
    """Look at interfaces, at what is on their hooks, and at the host.

    Raises:
        UsageError: there is no such interface or namespace.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    if interfaces is None:
        chosen = [each for each in list_all(netns=netns) if each.xdp]
        only = None
    else:
        chosen = [resolve(each, netns=netns) for each in dict.fromkeys(interfaces)]
        only = frozenset(each.name for each in chosen)
    look, pins = _Look(netns), Pins(pin_root)
    nothing: tuple[HookStatus, ...] = ()
    hooks = look.at("what is on the hooks", lambda: _hooks(chosen, pins), nothing)
    snapshot = look.at(
        "what was counted",
        lambda: _snapshot(netns, only, pin_root),
        Snapshot(time.monotonic_ns(), None, Tracepoints(), unread=_NOT_COUNTED),
    )
    is_hidden = look.at("whether pins are hidden", lambda: are_hidden(pins), False)
    leftovers = None
    if not is_hidden:
        what = "what killed commands may have left"
        leftovers = look.at(what, lambda: _leftovers(pin_root), None)
    facts = Facts(
        snapshot=snapshot,
        at=datetime.now().astimezone(),
        netns=netns,
        pin_root=pin_root,
        only=only,
        hooks=tuple(look.at_hook(hook) for hook in hooks),
        has_jit=_has_jit(),
        leftovers=leftovers,
        unread=look.at("what readers have left", lambda: _unread(chosen, pins), {}),
        is_hidden=is_hidden,
    )
    targets = dict(look.at_targets(each.target for each in facts.redirect_errors()))
    fitness = dict(look.at_ports(facts))
    return replace(facts, targets=targets, fitness=fitness, unseen=folded(look.unseen, snapshot))


def folded(unseen: Iterable[tuple[str, str]], snapshot: Snapshot) -> tuple[str, ...]:
    """Return what could not be seen, in sentences: what has one cause in one.

    Args:
        unseen: what was not, and why; or a text that ends with that.
        snapshot: what was counted; its notes say what was not read.
    """
    given = [*unseen, *(("", note.removesuffix(".")) for note in snapshot.notes)]
    causes = dict.fromkeys(why for what, why in given if what and ": " not in why)
    if snapshot.unread is not None:
        causes[snapshot.unread] = None
    by_cause: dict[str, list[str]] = {}
    for what, why in given:
        cause = next((each for each in causes if why == each or why.endswith(f": {each}")), None)
        if cause is None:
            by_cause.setdefault(f"{what}: {why}" if what else why, [])
            continue
        rest = "" if why == cause else why.replace(f": {cause}", "")
        text = f"{what} ({rest})" if what and rest else what or rest[:1].lower() + rest[1:]
        by_cause.setdefault(cause, []).append(text)
    return tuple(
        f"{cause}: {listed(texts, most=_MOST)}"
        if len(texts) > 1
        else f"{texts[0]}: {cause}"
        if texts
        else cause
        for cause, texts in by_cause.items()
    )


def _hooks(interfaces: Iterable[Interface], pins: Pins) -> tuple[HookStatus, ...]:
    return examine(interfaces, pins, with_members=True)


def _snapshot(netns: str | None, only: frozenset[str] | None, pin_root: str) -> Snapshot:
    from xdpkit.monitor.snapshot import take

    # Where all are meant, those count, too, that have no program and are redirected to.
    return take(netns=netns, interfaces=only, pin_root=pin_root)


def _leftovers(pin_root: str) -> tuple[Cleaned, ...] | None:
    from xdpkit.monitor.cleaning import clean

    return clean(pin_root=pin_root, dry_run=True)


def _unread(interfaces: Iterable[Interface], pins: Pins) -> dict[str, str]:
    """Return the folders of killed readers, by interface."""
    left = readers.left(pins)
    hooks = {(each.netns_cookie, each.index): each.name for each in interfaces}
    return {hooks[hook]: folder for hook, folder in left.items() if hook in hooks}


def _has_jit() -> bool | None:
    """Return whether programs are compiled, None where only another namespace can say."""
    with contextlib.suppress(OSError, ValueError):
        return int(_JIT.read_text()) > 0
    return None


class _Look:
    """Looks at things in a namespace, and takes down what could not be looked at.

    Attributes:
        unseen: what could not be looked at, and why.
    """

    def __init__(self, netns: str | None) -> None:
        self.unseen: list[tuple[str, str]] = []
        self._netns = netns

    def at(self, what: str, look: Callable[[], _T], otherwise: _T) -> _T:
        """Return what a look gives; where it fails, say so, and return the other value."""
        try:
            return look()
        except XdpkitError as error:
            why = error.cause
        except Exception as error:
            # Who is ill is not to be turned away because of one strange finding.
            why = f"{type(error).__name__}: {error}"
        self.unseen.append((f"{what} could not be looked at", why))
        return otherwise

    def at_hook(self, status: HookStatus) -> HookFacts:
        """Look at the programs of a hook, and at what their interface offers."""
        what = f"the programs on {status.interface.name}"
        return self.at(what, lambda: self._at_hook(status), HookFacts(status))

    def _at_hook(self, status: HookStatus) -> HookFacts:
        name = status.interface.name
        for each in (*status.attached, *status.programs):
            if each.note:
                self.unseen.append((f"not all of {name} could be looked at", each.note))
        device = self.at(f"what {name} offers", lambda: self._device(status.interface.index), None)
        served: dict[tuple[int, bool], list[AttachedProgram]] = {}
        for each in status.programs:
            served.setdefault((each.program.id, each.qid is None), []).append(each)
        web = self.at(
            f"the instructions of the programs on {name}",
            lambda: _web(number for number, _ in served),
            None,
        )
        return HookFacts(
            status,
            tuple(self._member(found, web, device) for found in served.values()),
            device,
        )

    def _device(self, index: int) -> Device | None:
        from xdpkit.interfaces import device_of

        return device_of(index, netns=self._netns)

    def _member(
        self, found: list[AttachedProgram], web: Web | None, device: Device | None
    ) -> Member:
        from xdpkit.monitor.complaints.code import read_code

        first = found[0]
        record = first.record.record if first.record is not None else None
        code: tuple[Code, ...] = ()
        if web is not None:
            seen = web
            code = self.at(
                f"the instructions of {first.program.name}",
                lambda: tuple(read_code(first.program.id, seen, record)),
                (),
            )
        member = Member(
            attached=first,
            queues=tuple(each.qid for each in found if each.qid is not None) or None,
            code=code,
        )
        before = record.negotiation if record is not None else None
        if before is None or device is None:
            return member
        maps = {name: each for one in code for name, each in one.redirects.items()}
        place = device
        now = self.at(
            f"whether {place.name} still offers what {member.name} needs",
            lambda: self._again(before, place, first.mode, maps),
            None,
        )
        natively = None
        if first.mode is Mode.GENERIC:
            natively = self.at(
                f"whether {place.name} offers what {member.name} needs in native mode",
                lambda: self._again(before, place, Mode.NATIVE, maps),
                None,
            )
        return replace(member, now=now, natively=natively)

    def _again(
        self,
        before: Negotiation,
        device: Device,
        mode: Mode,
        maps: Mapping[str, RedirectMap],
    ) -> Negotiation:
        """Negotiate again what a program needs, with what is known of the interface now."""
        from xdpkit.negotiation import negotiate

        # The program on the hook is the one that it is about.
        others = tuple(each for each in device.preconditions if each.name != "existing-program")
        requirements = _requirements(before)
        return negotiate(
            requirements,
            replace(device, preconditions=others),
            # The kernel is the one that it was attached in.
            kernel={
                each.finding.capability: each.finding
                for each in before.verdicts
                if each.finding.capability.startswith(_OF_THE_KERNEL)
            },
            mode=mode.value,
            policy=before.policy,
            targets=tuple(self._redirect_targets(requirements, maps)),
        )

    def _redirect_targets(
        self, requirements: Iterable[Requirement], maps: Mapping[str, RedirectMap]
    ) -> Iterator[RedirectTarget]:
        """Yield the interfaces that a program names by index, and those in its devmaps."""
        from xdpkit.negotiation import Target as RedirectTarget
        from xdpkit.requirements.context import is_port_map

        for needed in requirements:
            if needed.capability == "redirect-ifindex" and needed.ifindex is not None:
                found = self._device_if_there(needed.ifindex)
                if found is not None:
                    yield RedirectTarget(found, ifindex=needed.ifindex)
        for name, redirect in maps.items():
            for index in redirect.interfaces:
                found = self._device_if_there(index)
                if found is not None:
                    # A port that does not transmit is no reason to refuse a program, either, when
                    # it is attached.
                    yield RedirectTarget(found, map=name, optional=is_port_map(name))

    def _device_if_there(self, index: int) -> Device | None:
        with contextlib.suppress(UsageError):
            return self._device(index)
        return None

    def at_targets(
        self, targets: Iterable[Target]
    ) -> Iterator[tuple[tuple[int, int, int], TargetState]]:
        """Look at what became of the targets of redirects."""
        for target in dict.fromkeys(targets):
            what = f"the redirect target {target.name}"
            state = self.at(what, partial(self._target, target), None)
            if state is not None:
                yield (target.ifindex, target.map_id, target.index), state

    def _target(self, target: Target) -> TargetState | None:
        state = TargetState(has_entry=_has_entry(target))
        if not target.ifindex:
            return state if state.has_entry is not None else None
        from xdpkit.interfaces.device import judge
        from xdpkit.interfaces.observation import observe

        try:
            seen = observe(target.ifindex, netns_name=self._netns)
        except UsageError:
            # That of a devmap may be in another namespace than the program.
            return replace(state, is_gone=target.kind == "interface")
        if target.name != seen.link.name:
            return state
        return replace(state, device=judge(seen), is_up=bool(seen.link.flags & IFF_UP))

    def at_ports(self, facts: Facts) -> Iterator[tuple[tuple[str, int], tuple[Verdict, ...]]]:
        """Negotiate again the interfaces of ports that were asked for, as far as they are there."""
        wanted: dict[str, set[int]] = {}
        for table, port in facts.ports():
            if port.received is not None:
                wanted.setdefault(table.name, set()).add(port.number)
        for name, numbers in wanted.items():
            what = f"what the ports of {name} are fit for"
            nothing: dict[int, Interface] = {}
            present = self.at(what, partial(_interfaces_of, name, facts.pin_root), nothing)
            for number in sorted(numbers & present.keys()):
                unknown: tuple[Verdict, ...] = ()
                verdicts = self.at(
                    f"what port {number} of {name} is fit for",
                    partial(_fitness, present[number], tuple(present.values())),
                    unknown,
                )
                yield (name, number), verdicts


def _interfaces_of(table: str, pin_root: str) -> dict[int, Interface]:
    from xdpkit.ports import PortTable

    found = {}
    with PortTable.open(table, pin_root=pin_root) as opened:
        for number, each in opened.interfaces().items():
            # One may go meanwhile.
            with contextlib.suppress(UsageError):
                found[number] = resolve(each.ifindex, netns=each.netns)
    return found


def _fitness(interface: Interface, others: tuple[Interface, ...]) -> tuple[Verdict, ...]:
    from xdpkit.ports import negotiate

    return negotiate(interface, others=others)


def _web(programs: Iterable[int]) -> Web:
    from xdpkit.hook.reach import look

    return look(programs)


def _has_entry(target: Target) -> bool | None:
    """Return whether a map has an entry for a key, None where there is no map to look at.

    A broadcast has no key.
    """
    if not target.map_id or target.index == INDEX_ALL:
        return None
    # What is in an XSKMAP only programs can see.
    with contextlib.suppress(UsageError, KernelRefused), Map.from_id(target.map_id) as found:
        return target.index in found
    return None


def _requirements(before: Negotiation) -> Requirements:
    """Return what a program needs, from what was negotiated when it was attached."""
    from xdpkit.requirements import Requirements
    from xdpkit.requirements.context import is_of_ports

    needed = (
        each.requirement
        for each in before.verdicts
        if not each.requirement.capability.startswith(_ABOUT_THE_PLACE)
        and each.requirement.capability != "link"
        # Whether the interface is the port that it was is a complaint of its own.
        and not is_of_ports(each.requirement.capability)
    )
    return Requirements(before.program, tuple(needed), before.notes)
