# SPDX-License-Identifier: Apache-2.0
"""The machine, and the watching itself: what is not known, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdpkit.kernel.folder import BY_NAME
from xdpkit.monitor.complaints.complaint import Complaint, Severity, first, listed, lost
from xdpkit.monitor.complaints.facts import Facts

if TYPE_CHECKING:
    from xdpkit.hook import Cleaned


def jit(facts: Facts) -> Iterator[Complaint]:
    """The kernel's compiler of programs."""
    if facts.has_jit is False:
        yield Complaint(
            Severity.WARNING,
            "jit-off",
            "the kernel does not compile programs that are loaded now: it will interpret them",
            cause="net.core.bpf_jit_enable is 0",
            remedy="sysctl net.core.bpf_jit_enable=1",
        )


def stale_state(facts: Facts) -> Iterator[Complaint]:
    """What killed commands left, and interfaces that are gone."""
    groups: dict[tuple[str, str | None, str | None], list[Cleaned]] = {}
    for found in facts.leftovers or ():
        if not _is_of_a_reader(facts, found):
            groups.setdefault((found.what, found.interface, found.error), []).append(found)
    here = {hook.name for hook in facts.hooks}
    for (text, interface, error), each in groups.items():
        times = f", {len(each)} times" if len(each) > 1 else ""
        place = f" on {interface}" if interface is not None else ""
        # Where no interface has it any more, it only takes up room.
        matters = interface is not None and (facts.is_whole_host or interface in here)
        yield Complaint(
            Severity.WARNING if matters and error is None else Severity.NOTE,
            "stale-state",
            f"there is left{place}{times}: {text}"
            if error is None
            else f"{text}{times} cannot be cleaned up",
            interface or "",
            cause=error,
            remedy=facts.host_command("clean") if error is None else None,
            evidence=first(found.path for found in each if found.path is not None),
        )


def _is_of_a_reader(facts: Facts, found: Cleaned) -> bool:
    """Whether it is what a killed reader left that is told of by itself."""
    if found.path is not None:
        return found.path in facts.unread.values()
    # The copies that report to nobody.
    return found.error is None and found.interface in facts.unread


def killed_readers(facts: Facts) -> Iterator[Complaint]:
    """Programs that report frames to a reader that was killed."""
    for name, folder in facts.unread.items():
        yield Complaint(
            Severity.WARNING,
            "killed-reader",
            f"the programs on {name} report frames to nobody",
            name,
            cause="the process that wanted them (xdpkit capture or events) was killed",
            remedy=f"the next change to {name} ends that, or: {facts.host_command('clean')}",
            evidence=(folder,),
        )


def monitor(facts: Facts) -> Iterator[Complaint]:
    """The resident programs, and what they could not count."""
    installed = facts.snapshot.installed
    if facts.snapshot.unread is not None:
        yield Complaint(
            Severity.NOTE,
            "monitor-not-read",
            "what was lost so far is not known: whether errors are counted cannot be seen from here"
            if facts.is_hidden
            else "what was lost so far is not known: the errors that were counted cannot be read",
            cause=facts.snapshot.unread,
            remedy=BY_NAME if facts.is_hidden else None,
        )
        return
    if installed is None:
        yield Complaint(
            Severity.NOTE,
            "monitor-not-installed",
            "errors are not counted: which packets were lost so far, and why, nobody knows",
            remedy=facts.host_command("monitor install"),
        )
        return
    # What is not told apart, or missed, may be of anybody's programs.
    severity = Severity.WARNING if facts.is_whole_host else Severity.NOTE
    if installed.absent:
        yield Complaint(
            Severity.NOTE,
            "tracepoints-missing",
            f"this kernel does not have all tracepoints: {listed(installed.absent, most=8)}",
        )
    found = facts.snapshot.tracepoints
    if found.other:
        yield Complaint(
            severity,
            "errors-not-told-apart",
            f"{lost(found.other)} for reasons that could not be told apart any more",
            cause=f"there were more kinds of errors than the {installed.slots} that each CPU keeps"
            " apart",
            remedy=f"to begin anew: {facts.host_command('monitor remove')} &&"
            f" {facts.host_command('monitor install')}",
            packets=found.other,
        )
    if found.missed:
        yield Complaint(
            severity,
            "errors-missed",
            f"{found.missed:,} error{'' if found.missed == 1 else 's'} could not be counted",
            cause="the counting ran already on that CPU",
        )


def refused_attachments(facts: Facts) -> Iterator[Complaint]:
    """Attachments that the kernel refused: whoever tried knows, others do not."""
    for text, times in facts.snapshot.tracepoints.attach_failures.items():
        yield Complaint(
            Severity.NOTE,
            "attach-refused",
            f"the kernel refused to attach a program, {times:,} time{'' if times == 1 else 's'}:"
            f" {text}",
        )


def elsewhere(facts: Facts) -> Iterator[Complaint]:
    """Errors of other namespaces, which the resident programs see as well."""
    found = facts.snapshot.tracepoints
    by_netns: dict[str, int] = {}
    numbers = [(each.where.netns, each.packets) for each in found.errors]
    numbers += [(each.where.netns, each.packets) for each in found.redirect_errors]
    for netns, number in numbers if facts.only is None else ():
        if netns:
            by_netns[netns] = by_netns.get(netns, 0) + number
    for netns, number in sorted(by_netns.items()):
        # As xdpkit.monitor.places calls what has no name, or has ended.
        has_name = not netns.startswith(("net:[", "gone:["))
        yield Complaint(
            Severity.NOTE,
            "errors-elsewhere",
            f"{lost(number)} in network namespace {netns}",
            remedy=facts.host_command("doctor", "-n", netns) if has_name else None,
            packets=number,
        )
