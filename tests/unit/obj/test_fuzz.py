# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of real objects: any bytes give values or our error, and soon."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.corpus import build
from xdpkit.errors import ObjectFormatError
from xdpkit.obj import kernel_btf, read

SOURCES = ("variables", "maps_of_maps", "program_array", "subprograms_shared", "kfuncs", "kconfig")


@cache
def originals() -> list[Path]:
    found = sorted(Path("/usr/lib").glob("*/bpf/*.o"))[:4]
    for source in build.sources():
        if source.stem in SOURCES:
            found += [variant.path for variant in build.variants(source)]
    return found


def blamed_file(data: bytes) -> str | None:
    """Read everything there is; return the file that our error blames, None if there was none."""
    try:
        obj = read(data, name="damaged.o")
        for program in obj.programs.values():
            program.link()
        dict(obj.variables)
        kernel_btf(obj)
    except ObjectFormatError as error:
        return error.file
    return None


def damage(data: st.DataObject) -> bytes:
    """Return a copy of an object with some bytes changed."""
    if not originals():
        pytest.skip("there is no BPF compiler: make test-peers")
    damaged = bytearray(data.draw(st.sampled_from(originals())).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        width = data.draw(st.sampled_from((1, 2, 4, 8)))
        value = data.draw(st.integers(0, 256**width - 1) | st.just(256**width - 1))
        damaged[at : at + width] = value.to_bytes(width, "little")
    return bytes(damaged)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_object_gives_values_or_our_error(data: st.DataObject) -> None:
    assert blamed_file(damage(data)) in (None, "damaged.o")


@pytest.mark.soak
@settings(max_examples=50_000, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_many_damaged_objects_give_values_or_our_error(data: st.DataObject) -> None:
    assert blamed_file(damage(data)) in (None, "damaged.o")


@given(st.data())
def test_an_object_that_is_cut_off_gives_values_or_our_error(data: st.DataObject) -> None:
    if not originals():
        pytest.skip("there is no BPF compiler: make test-peers")
    whole = data.draw(st.sampled_from(originals())).read_bytes()
    end = data.draw(st.integers(0, len(whole)))
    assert blamed_file(whole[:end]) in (None, "damaged.o")
