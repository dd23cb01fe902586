# SPDX-License-Identifier: Apache-2.0
"""What is done to interfaces takes capabilities that do not stand for each other.

In bpf(2) CAP_SYS_ADMIN stands for CAP_NET_ADMIN, see :mod:`xdpkit.syscalls.privilege`. It does not
where an offload is switched, or the peer of a veth is looked at; and only CAP_SYS_ADMIN enters a
network namespace.
"""

from __future__ import annotations

from xdpkit.syscalls.privilege import effective_capabilities, explain_eperm
from xdpkit.uapi.capability import Capability


def lacking(*needed: Capability) -> tuple[Capability, ...]:
    """Return which of these capabilities this process has not itself."""
    effective = effective_capabilities()
    return tuple(each for each in needed if not effective >> each & 1)


def require(what: str, *needed: Capability) -> None:
    """Refuse what would fail only when something else has been changed.

    Raises:
        MissingPrivilege: this process has not all of these capabilities itself.
    """
    if lacking(*needed):
        raise explain_eperm(what, needed)


def named(missing: tuple[Capability, ...]) -> str:
    """Return what a process lacks, as a phrase: "this process lacks CAP_SYS_ADMIN"."""
    return f"this process lacks {' and '.join(each.kernel_name for each in missing)}"
