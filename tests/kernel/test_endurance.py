# SPDX-License-Identifier: Apache-2.0
"""The same again and again: nothing is left behind. ``make soak`` has the long counts.

An object in the kernel lives by a descriptor, a pin or a hook: the fixture of all kernel tests
looks for descriptors, these tests for the others.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from tests.kernel.attaching import on_hook, program
from tests.kernel.net import Veth

rounds = pytest.mark.parametrize("count", [20, pytest.param(2000, marks=pytest.mark.soak)])


@rounds
@pytest.mark.parametrize("source", ["maps_of_maps", "program_array", "kfuncs", "core_fields"])
def test_loading_again_and_again_leaves_nothing_behind(source: str, count: int) -> None:
    path = build.variants(build.FOLDER / f"{source}.c")[0].path
    for _ in range(count):
        with xdpkit.load_all(xdpkit.read(path)) as loaded:
            assert loaded.programs


@rounds
def test_attaching_again_and_again_leaves_nothing_behind(
    veth: Veth, pin_root: str, count: int
) -> None:
    for _ in range(count):
        xdpkit.attach(veth.name, program(), pin=True, netns=veth.netns, pin_root=pin_root).close()
        assert on_hook(veth, pin_root) is not None
        xdpkit.detach(veth.name, netns=veth.netns, pin_root=pin_root)
        assert on_hook(veth, pin_root) is None
    assert not list(Path(pin_root).glob("xdpkit/*/*"))


@pytest.mark.soak
def test_memory_does_not_grow_with_the_number_of_loads() -> None:
    path = build.variants(build.FOLDER / "maps_hash.c")[0].path

    def load(count: int) -> int:
        for _ in range(count):
            with xdpkit.load_all(xdpkit.read(path)):
                pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    load(200)
    before = load(200)
    assert load(2000) - before < 4 * 1024  # kilobytes
