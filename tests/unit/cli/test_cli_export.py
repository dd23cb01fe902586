# SPDX-License-Identifier: Apache-2.0
"""The command that exports, without a kernel."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.cli.commands import run
from tests.unit.monitor.snapshots import error, full, snapshot
from xdpkit.cli import export
from xdpkit.cli.export import answer, replace_file
from xdpkit.errors import UsageError, XdpkitError
from xdpkit.monitor.export import Exporter, Format
from xdpkit.monitor.model import Snapshot


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """What is read is the last one of these."""
    found = [full()]
    monkeypatch.setattr(export, "_take", lambda *where: found[-1])
    return found


def without_time(page: str) -> list[str]:
    return [line for line in page.splitlines() if "scrape_seconds " not in line]


def test_once_prints_the_metrics(counted: list[Snapshot]) -> None:
    done = run("export", "--once")
    assert (done.status, done.messages) == (0, "")
    assert without_time(done.output) == without_time(Exporter(full).page().decode())
    assert done.output.endswith("\n")


def test_what_could_not_be_read_is_said_beside_the_metrics(counted: list[Snapshot]) -> None:
    counted.append(snapshot(notes=("eth1 cannot be looked at: it is gone.",)))
    done = run("export", "--once")
    assert (done.status, done.messages) == (0, "xdpkit: eth1 cannot be looked at: it is gone.\n")
    assert "xdpkit_export_errors_total 1.0" in done.output.splitlines()


def test_once_as_json_is_every_sample(counted: list[Snapshot]) -> None:
    counted.append(snapshot(error(packets=3), notes=("so",)))
    found = run("export", "--once", "-j").json
    assert (found["schema"], found["notes"]) == (1, ["so"])
    assert found["samples"][0] == {
        "name": "xdpkit_errors",
        "labels": {
            "netns": "",
            "interface": "eth0",
            "program": "firewall",
            "action": "aborted",
            "reason": "aborted",
        },
        "value": 3,
    }


def test_once_folds_what_is_too_many(counted: list[Snapshot]) -> None:
    counted.append(snapshot(error(program="a", packets=2), error(program="b")))
    done = run("export", "--once", "--max-series", 1)
    assert 'xdpkit_export_folded_series{metric="xdpkit_errors_total"} 1.0' in done.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--once", "--listen", "[::1]:1"], "--listen is for a server, and --once for none"),
        (["--output", "x"], "--output is for --once; a server has no file"),
        (["--max-series", "0"], "Invalid value for '--max-series': 0 is not in the range x>=1"),
        (["--listen", "localhost:9435"], "'localhost' is no IP address of a host"),
    ],
)
def test_what_makes_no_sense_is_refused(
    counted: list[Snapshot], arguments: list[str], text: str
) -> None:
    done = run("export", *arguments)
    assert done.status == 2
    assert text in done.messages


def test_output_is_a_file_that_others_can_read(counted: list[Snapshot], tmp_path: Path) -> None:
    path = tmp_path / "xdpkit.prom"
    done = run("export", "--once", "--output", path)
    assert (done.status, done.output, done.messages) == (0, "", "")
    assert without_time(path.read_text()) == without_time(Exporter(full).page().decode())
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["xdpkit.prom"]


@contextmanager
def replacing_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        yield


def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "xdpkit.prom"
    path.write_text("old")
    with (
        replacing_fails(monkeypatch),
        pytest.raises(XdpkitError, match=f"^write {path}: No space left on device$"),
    ):
        replace_file(str(path), b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["xdpkit.prom"]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "none" / "xdpkit.prom"
    with pytest.raises(XdpkitError, match=f"^write {path}: No such file or directory$"):
        replace_file(str(path), b"new")


def test_what_a_symbolic_link_points_at_is_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "real.prom", tmp_path / "link.prom"
    link.symlink_to(path)
    replace_file(str(link), b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_what_is_no_file_is_not_replaced(path: str) -> None:
    with pytest.raises(UsageError, match="it is not a regular file, and cannot be replaced"):
        replace_file(path, b"new")


def page(format: Format) -> bytes:
    return format.name.encode()


@pytest.mark.parametrize(
    ("path", "accept", "status", "type_", "body"),
    [
        ("/metrics", "", 200, Format.PLAIN.value, b"PLAIN"),
        (
            "/metrics",
            "application/openmetrics-text",
            200,
            Format.OPENMETRICS.value,
            b"OPENMETRICS",
        ),
        ("/favicon.ico", "", 404, "text/plain; charset=utf-8", b"Not Found\n"),
        ("/metrics/", "", 404, "text/plain; charset=utf-8", b"Not Found\n"),
    ],
)
def test_paths_are_answered(path: str, accept: str, status: int, type_: str, body: bytes) -> None:
    found = answer(page, path, accept)
    assert (found.status, found.content_type, found.body) == (status, type_, body)


def test_the_first_page_leads_to_the_metrics() -> None:
    found = answer(page, "/", "")
    assert (found.status, found.content_type) == (200, "text/html; charset=utf-8")
    assert b'<a href="/metrics">' in found.body
