# SPDX-License-Identifier: Apache-2.0
"""A driver in a release, as the table has it: for a machine that is not here."""

from __future__ import annotations

import difflib

from xdpkit.capabilities import (
    Answer,
    Device,
    Finding,
    Kernel,
    Precondition,
    generic,
    written,
)
from xdpkit.errors import UsageError
from xdpkit.interfaces import native, preconditions, table, veth
from xdpkit.interfaces.table import Driver

_MTU = 1500


def profile(name: str) -> Device:
    """Return what a driver offers in a kernel release.

    ::

        profile("mlx5@6.1")

    Its MTU is 1500, and its configuration is taken to be one that the driver accepts; limits are
    those of an x86-64 machine.

    Args:
        name: the driver as ``ethtool -i`` shows it, or as people call it, "@", and the release.

    Raises:
        UsageError: the table does not have the driver, or that is no release.
    """
    what = f"read profile {name!r}"
    wanted, at, written = name.partition("@")
    kernel = Kernel.parse(written)
    if not at or kernel.release is None:
        raise UsageError(what, cause="a profile is a driver and a release", remedy="as in mlx5@6.1")
    driver = table.find(wanted, kernel)
    if driver is None:
        return _without_native(name, wanted, kernel, what)
    found = native.findings_of(
        native.by_table(driver, kernel), driver=driver, kernel=kernel, said=None
    )
    found["mode-generic"] = generic.findings(kernel)["mode-generic"]
    conditions: tuple[Precondition, ...] = ()
    if driver.mtu is not None:
        found["mtu"] = Finding("mtu", Answer.YES, driver.mtu.source, driver.mtu.limit)
        conditions = (preconditions.mtu(driver, kernel, name, _MTU, limit_fits=True),)
    if driver.name == veth.KIND and found["action-tx"].answer is Answer.YES:
        why = f"{found['action-tx'].evidence}, while its peer has a program"
        found["action-tx"] = Finding("action-tx", Answer.UNKNOWN, why)
    return _device(name, driver.name, kernel, found, conditions, driver)


def _without_native(name: str, wanted: str, kernel: Kernel, what: str) -> Device:
    entry = table.find_without_native(wanted)
    if entry is None:
        near = difflib.get_close_matches(wanted, table.names(), n=1)
        raise UsageError(
            what,
            cause=f"the table has no driver {wanted!r}",
            remedy=f"did you mean {near[0]}?" if near else None,
        )
    evidence = f"{wanted} has no native XDP up to Linux {written(entry.last)} ({entry.source})"
    features = dict.fromkeys(table.FEATURES, (Answer.NO, evidence))
    if kernel.release is not None and kernel.release > entry.last:
        features = dict.fromkeys(table.FEATURES, (Answer.UNKNOWN, evidence))
    found = native.findings_of(features, driver=None, kernel=kernel, said=None)
    found["mode-generic"] = generic.findings(kernel)["mode-generic"]
    return _device(name, wanted, kernel, found, (), None)


def _device(
    name: str,
    driver_name: str,
    kernel: Kernel,
    found: dict[str, Finding],
    conditions: tuple[Precondition, ...],
    driver: Driver | None,
) -> Device:
    return Device(
        name=name,
        driver=driver_name,
        kernel=kernel.text,
        kind=driver_name if driver is not None and driver.name == veth.KIND else None,
        mtu=_MTU,
        findings=dict(sorted(found.items())),
        preconditions=conditions,
        source=f"profile {name}",
    )
