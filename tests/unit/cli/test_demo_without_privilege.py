# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.cli.commands import run
from xdpkit.cli.demo import shipped, unprivileged
from xdpkit.errors import RequirementUnmet


@pytest.fixture(autouse=True)
def _without_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unprivileged, "effective_capabilities", lambda: 0)


def test_it_says_what_it_needs_and_shows_the_program() -> None:
    before = os.getcwd()
    outcome = run("demo")
    assert (outcome.status, outcome.messages) == (0, "")
    assert "this process lacks CAP_SYS_ADMIN and CAP_NET_ADMIN" in " ".join(outcome.output.split())
    assert "$ xdpkit inspect demo.o\n" in outcome.output
    assert "const volatile __u16 blocked_port" in outcome.output
    assert "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in outcome.output
    assert os.getcwd() == before


def test_json_says_that_it_did_not_run() -> None:
    document = run("demo", "-j").json
    assert document["ran"] is False
    assert "CAP_SYS_ADMIN" in document["missing"]
    (inspected,) = document["steps"][0]["commands"]
    assert inspected["output"]["programs"][0]["name"] == "firewall"


def test_capabilities_of_a_user_namespace_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unprivileged, "effective_capabilities", lambda: -1)
    monkeypatch.setattr(unprivileged, "in_initial_user_namespace", lambda: False)
    assert "user namespace" in (unprivileged.missing_privilege() or "")
    monkeypatch.setattr(unprivileged, "in_initial_user_namespace", lambda: True)
    assert unprivileged.missing_privilege() is None


def test_a_package_that_was_not_built_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("xdpkit.kernel.shipped.FOLDER", tmp_path)
    with pytest.raises(RequirementUnmet, match="the package was not built"):
        shipped.folder()
