# SPDX-License-Identifier: Apache-2.0
"""Building a wheel from a copy of the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_SOURCES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "LICENSES", "bpf", "src")


def run(*command: str | Path, **options: Any) -> str:
    """Run a command that has to succeed; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    output: str = done.stdout
    return output


def copy_sources(tree: Path) -> Path:
    """Copy what a wheel is built from into a folder; return the folder."""
    built = shutil.ignore_patterns("_bpf", "__pycache__")
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=built)
        else:
            shutil.copy(ROOT / name, tree / name)
    return tree


def build(tree: Path) -> Path:
    """Build the wheel; return its path."""
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tree / "dist", tree)
    (path,) = (tree / "dist").glob("*.whl")
    return path
