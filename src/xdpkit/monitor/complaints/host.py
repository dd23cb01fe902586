# SPDX-License-Identifier: Apache-2.0
"""The machine, and the watching itself: what is not known, and why."""

from __future__ import annotations

from collections.abc import Iterator

from xdpkit.monitor.complaints.complaint import Complaint, Severity, listed, lost
from xdpkit.monitor.complaints.facts import Facts


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
    # What readers left is told of by itself.
    leftovers = [each for each in facts.leftovers or () if each.path not in facts.unread.values()]
    for found in leftovers:
        if found.error is not None:
            continue
        place = f" on {found.interface}" if found.interface is not None else ""
        yield Complaint(
            Severity.WARNING,
            "stale-state",
            f"there is left{place}: {found.what}",
            found.interface or "",
            remedy=facts.host_command("clean"),
            evidence=(found.path,) if found.path is not None else (),
        )
    for found in leftovers:
        if found.error is not None:
            yield Complaint(
                Severity.NOTE,
                "stale-state",
                f"{found.what} cannot be cleaned up",
                found.interface or "",
                cause=found.error,
                evidence=(found.path,) if found.path is not None else (),
            )


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
    if installed is None:
        yield Complaint(
            Severity.NOTE,
            "monitor-not-installed",
            "errors are not counted: which packets were lost so far, and why, nobody knows",
            remedy=facts.host_command("monitor install"),
        )
        return
    if installed.absent:
        yield Complaint(
            Severity.NOTE,
            "tracepoints-missing",
            f"this kernel does not have all tracepoints: {listed(installed.absent, most=8)}",
        )
    found = facts.snapshot.tracepoints
    if found.other:
        yield Complaint(
            Severity.WARNING,
            "errors-not-told-apart",
            f"{lost(found.other)} for reasons that could not be told apart any more",
            cause=f"there were more kinds of errors than the {installed.slots} that each CPU keeps"
            " apart",
            remedy=f"to begin anew: {facts.host_command('monitor remove')} &&"
            f" {facts.host_command('monitor install')}",
        )
    if found.missed:
        yield Complaint(
            Severity.WARNING,
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
        has_name = not netns.startswith("net:[")
        yield Complaint(
            Severity.NOTE,
            "errors-elsewhere",
            f"{lost(number)} in network namespace {netns}",
            remedy=f"xdpkit doctor -n {netns}" if has_name else None,
        )
