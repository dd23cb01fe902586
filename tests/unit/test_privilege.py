# SPDX-License-Identifier: Apache-2.0
"""What this process may do, and why the kernel said EPERM."""

from __future__ import annotations

import errno
import os
import re
import resource
from pathlib import Path

import pytest

from xdpkit.errors import KernelRefused, MissingPrivilege
from xdpkit.syscalls import privilege
from xdpkit.uapi.capability import Capability

NET_ADMIN, SYS_ADMIN, BPF = Capability.NET_ADMIN, Capability.SYS_ADMIN, Capability.BPF


def have(monkeypatch: pytest.MonkeyPatch, *capabilities: Capability, initial: bool = True) -> None:
    """Let this process have these capabilities, in the initial user namespace or not."""
    mask = sum(1 << each for each in capabilities)
    monkeypatch.setattr(privilege, "effective_capabilities", lambda: mask)
    monkeypatch.setattr(privilege, "last_capability", lambda: int(BPF))
    monkeypatch.setattr(privilege, "in_initial_user_namespace", lambda: initial)


def test_the_kernel_says_of_capabilities_what_proc_shows() -> None:
    shown = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert shown is not None
    assert privilege.effective_capabilities() == int(shown[1], 16)
    assert privilege.last_capability() == int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def test_without_proc_the_user_namespace_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> os.stat_result:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr(os, "stat", missing)
    assert privilege.in_initial_user_namespace()


def test_sys_admin_stands_for_net_admin_in_bpf_only(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, SYS_ADMIN)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)

    in_netlink = privilege.explain_eperm("set", (NET_ADMIN,), "not you")
    in_bpf = privilege.explain_bpf_eperm("load", (NET_ADMIN, BPF))

    assert isinstance(in_netlink, MissingPrivilege)
    assert str(in_netlink) == (
        "set: this process lacks CAP_NET_ADMIN\n"
        "Remedy: run it as root (sudo), or give it CAP_NET_ADMIN"
    )
    assert isinstance(in_bpf, KernelRefused)
    assert "security policy" in in_bpf.cause


def test_the_memory_limit_is_blamed_for_a_refusal_of_bpf_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, NET_ADMIN, SYS_ADMIN)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "5.10.0", "1", "m")))

    assert "RLIMIT_MEMLOCK" in privilege.explain_bpf_eperm("load", (NET_ADMIN,)).cause
    assert "security policy" in privilege.explain_eperm("set", (NET_ADMIN,)).cause


def test_who_has_the_capability_is_told_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, NET_ADMIN)
    error = privilege.explain_eperm("set", (NET_ADMIN,), "not on this device")
    assert isinstance(error, KernelRefused)
    assert (error.errno, error.extack) == (errno.EPERM, "not on this device")
    assert str(error) == "set: not on this device (EPERM)"


def test_in_a_user_namespace_netlink_has_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, NET_ADMIN, initial=False)
    error = privilege.explain_eperm("set", (NET_ADMIN,))
    assert isinstance(error, MissingPrivilege)
    assert "in a user namespace" in error.cause


def test_what_would_fail_too_late_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, SYS_ADMIN)
    privilege.require("undo", (SYS_ADMIN,))
    have(monkeypatch, NET_ADMIN)
    with pytest.raises(MissingPrivilege, match="undo: this process lacks CAP_SYS_ADMIN"):
        privilege.require("undo", (SYS_ADMIN,))
    have(monkeypatch, SYS_ADMIN, initial=False)
    with pytest.raises(MissingPrivilege, match="undo: this process is in a user namespace"):
        privilege.require("undo", (SYS_ADMIN,))
