# SPDX-License-Identifier: Apache-2.0
"""What /proc says of processes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.syscalls.proc import link_id_of, own_pid, pids, shows_all


@pytest.mark.parametrize(
    ("fdinfo", "link_id"),
    [
        (b"pos:\t0\nmnt_id:\t17\nlink_type:\txdp\nlink_id:\t7\nprog_id:\t9\nifindex:\t3\n", 7),
        (b"pos:\t0\nlink_type:\t<unknown>\nlink_id:\t4294967295\n", 4294967295),
        (b"pos:\t0\nprog_id:\t7\n", None),
        (b"link_id:\n", None),
        (b"link_id:\t-1\n", None),
        (b"my_link_id:\t7\n", None),
        (b"", None),
    ],
)
def test_a_links_id_is_found_in_its_fdinfo(fdinfo: bytes, link_id: int | None) -> None:
    assert link_id_of(fdinfo) == link_id


@given(st.binary(max_size=60))
def test_any_fdinfo_has_an_id_or_none(fdinfo: bytes) -> None:
    for data in (fdinfo, b"link_id:" + fdinfo):
        found = link_id_of(data)
        assert found is None or found >= 0


def test_this_process_is_among_all() -> None:
    assert own_pid() in pids()
    assert os.path.samefile(f"/proc/{own_pid()}", "/proc/self")


def test_all_processes_are_shown_in_the_first_pid_namespace_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert shows_all() is (os.readlink("/proc/self/ns/pid") == "pid:[4026531836]")

    look = os.stat

    def hiding(path: str) -> os.stat_result:
        if path == "/proc/1":
            raise FileNotFoundError(path)
        return look(path)

    # As with hidepid=2.
    monkeypatch.setattr(os, "stat", hiding)
    assert not shows_all()
