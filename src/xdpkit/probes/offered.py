# SPDX-License-Identifier: Apache-2.0
"""What the running kernel offers, by the names of :mod:`xdpkit.capabilities`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from xdpkit import capabilities
from xdpkit.capabilities import Scope
from xdpkit.errors import UsageError, XdpkitError
from xdpkit.probes.ask import XDP_DROP_PROGRAM, Reply, ask, load
from xdpkit.probes.calls import ask_helper, ask_kfunc, ask_tracing
from xdpkit.probes.features import FEATURES
from xdpkit.probes.finding import Answer
from xdpkit.probes.maps import ask_map_type
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import TestRun

_known: dict[str, capabilities.Finding] = {}


def kernel_finding(name: str) -> capabilities.Finding:
    """Return whether the kernel offers a capability; a conclusive answer is remembered.

    ::

        kernel_finding("helper:redirect_map")
        kernel_finding("map-type:xskmap")

    Raises:
        UsageError: there is no such capability, or others offer it and not the kernel.
    """
    if name in _known:
        return _known[name]
    try:
        answer, evidence = _question(name)()
    except UsageError:
        raise
    except XdpkitError as error:
        answer, evidence = Answer.UNKNOWN, str(error)
    finding = capabilities.Finding(name, answer, evidence)
    if answer.is_conclusive:
        _known[name] = finding
    return finding


def kernel_findings(names: Iterable[str]) -> dict[str, capabilities.Finding]:
    """Return whether the kernel offers capabilities, by name; see :func:`kernel_finding`."""
    return {name: kernel_finding(name) for name in names}


def forget() -> None:
    """Forget all answers."""
    _known.clear()


def _question(name: str) -> Callable[[], Reply]:
    if name in _FIXED:
        return _FIXED[name]
    family, _, member = name.partition(":")
    if member and family in _FAMILIES:
        question = _FAMILIES[family]
        return lambda: question(member)
    scope = capabilities.capability(name).scope
    raise UsageError(
        f"ask the kernel about {name}",
        cause="the driver offers that" if scope is Scope.DRIVER else "there is no probe for it",
    )


def _ask_test_run() -> Reply:
    run = TestRun(data=bytes(64), repeat=1)
    with load(XDP_DROP_PROGRAM) as program:
        number = program.fileno()
        return ask("BPF_PROG_TEST_RUN", lambda: bpf.prog_test_run(number, run, what="probe"))


_FIXED: dict[str, Callable[[], Reply]] = {
    "link": FEATURES["bpf-link-xdp"].ask,
    "redirect-broadcast": FEATURES["redirect-broadcast"].ask,
    "test-run": _ask_test_run,
    "test-run-live": FEATURES["live-frames"].ask,
    "btf-tracing": ask_tracing,
}
_FAMILIES: dict[str, Callable[[str], Reply]] = {
    "helper": ask_helper,
    "kfunc": ask_kfunc,
    "map-type": ask_map_type,
}
