# SPDX-License-Identifier: Apache-2.0
"""The processes that the tests run in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What the output looks like is not for the user to say here.
_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_ADDOPTS": "",
    "PY_COLORS": "0",
    "COLUMNS": "80",
}

# Two files of tests that wait for each other, and a test that knows where it has to run.
_CONFTEST = """
import os
from pathlib import Path

def pytest_sessionstart():
    Path("parent").write_text(str(os.getpid()))

def pytest_worker_begins():
    Path(f"worker-{os.getpid()}").touch()
"""
_MEETING = """
import os
import pytest

def test_first(tmp_path):
    assert os.path.exists(f"worker-{os.getpid()}")
    open("FIFO", "MODE").close()

@pytest.mark.skip(reason="of what MODE lacks")
def test_second():
    pass

def test_third():
    print("said by MODE")
    assert not "found by MODE"
"""
_ALONE = """
import os
import pytest

@pytest.mark.alone
def test_alone():
    assert str(os.getpid()) == open("parent").read()
    assert len([name for name in os.listdir() if name.startswith("worker-")]) == 2
"""
_DYING = """
import os, signal

def test_dying():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder in two workers."""
    (folder / "conftest.py").write_text(_CONFTEST)
    command = [sys.executable, "-m", "pytest", "-p", "tests.workers", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", folder, "--workers", "2", "-rs", *options],
        cwd=folder,
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    """A folder with two files whose tests end only if both run at once."""
    os.mkfifo(tmp_path / "meeting")
    for mode in "rw":
        source = _MEETING.replace("FIFO", "meeting").replace("MODE", mode)
        (tmp_path / f"test_{mode}.py").write_text(source)
    return tmp_path


def test_two_workers_run_at_once_and_one_account_is_given_of_them(meeting: Path) -> None:
    (meeting / "test_alone.py").write_text(_ALONE)

    done = run(meeting)

    assert done.returncode == 1
    assert "2 failed, 3 passed, 2 skipped" in done.stdout
    for mode in "rw":
        assert f"of what {mode} lacks" in done.stdout
        assert f"Captured stdout call -----------------------------\nsaid by {mode}" in done.stdout
        assert f'assert not "found by {mode}"' in done.stdout


def test_a_worker_that_dies_is_a_failure_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_dying.py").write_text(_DYING)

    done = run(tmp_path)

    assert done.returncode == 1
    assert "a worker has died: test_dying.py::test_dying" in done.stdout


def test_enough_failures_end_the_run(meeting: Path) -> None:
    (meeting / "test_alone.py").write_text(_ALONE)

    done = run(meeting, "-x", "-v")

    assert done.returncode == 1
    assert "!! stopping after " in done.stdout
    assert "test_alone" not in done.stdout
