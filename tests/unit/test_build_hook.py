# SPDX-License-Identifier: Apache-2.0
"""The hook that compiles the kernel-side programs into a wheel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest

import hatch_build
from xdpkit.compiler import Compiler, find_compilers

ROOT = Path(__file__).parents[2]
CLANG = Compiler("clang-19", ("clang-19",), (), ())
ZIG = Compiler("ziglang", ("zig",), (), ())


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(hatch_build, "_tell", told.append)
    return told


def hook(root: Path) -> hatch_build.CompileBpf:
    nothing = cast(Any, None)
    return hatch_build.CompileBpf(str(root), {}, nothing, nothing, str(root), "wheel")


def test_with_a_clang_the_build_needs_nothing_more(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hatch_build, "find_compilers", lambda: (CLANG, ZIG))
    assert hook(ROOT).dependencies() == []
    assert messages == []


def test_without_a_clang_the_build_fetches_ziglang_and_says_so(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hatch_build, "find_compilers", tuple)
    assert hook(ROOT).dependencies() == ["ziglang>=0.13"]
    assert len(messages) == 1
    assert "fetching ziglang" in messages[0]


def test_each_program_is_compiled_and_what_has_lost_its_source_is_removed(
    messages: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    zig = next(found for found in find_compilers() if found.name == "ziglang")
    monkeypatch.setattr(hatch_build, "find_compilers", lambda: (zig,))
    shutil.copytree(ROOT / "bpf", tmp_path / "bpf")
    objects = tmp_path / "src" / "xdpkit" / "_bpf"
    objects.mkdir(parents=True)
    (objects / "gone.o").touch()
    hook(tmp_path).initialize("standard", {})
    sources = sorted(path.stem for path in (ROOT / "bpf").glob("*.c"))
    assert sorted(path.name for path in objects.iterdir()) == [f"{name}.o" for name in sources]
    assert [message.split()[1] for message in messages] == [f"bpf/{name}.c" for name in sources]
