# SPDX-License-Identifier: Apache-2.0
"""Reading /proc and /sys: the parts that are pure."""

from __future__ import annotations

import pytest

from xdpkit.kernel.host import count_cpus, find_symbols, version_code

KALLSYMS = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000010 t twice
ffffffff81000020 t twice
ffffffff81000030 T twice_and_more
ffffffffc0000000 t of_module\t[veth]
ffffffffc0000010 t last"""


@pytest.mark.parametrize(
    ("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0-3,8-11\n", 8), ("0,2,4-5\n", 4)]
)
def test_a_list_of_cpus_is_counted(text: str, count: int) -> None:
    assert count_cpus(text) == count


@pytest.mark.parametrize(
    ("release", "code"),
    [
        ("6.18.44-cloud", 0x06122C),
        ("5.10.0", 0x050A00),
        ("4.19.300-generic", 0x0413FF),
        ("6.1", 0),
        ("unknown", 0),
    ],
)
def test_a_release_has_a_version_code(release: str, code: int) -> None:
    assert version_code(release) == code


def test_symbols_are_found_by_their_whole_name() -> None:
    names = ("_stext", "twice", "of_module", "last", "absent", "fixed_percpu_data", "stext")
    assert find_symbols(KALLSYMS, names) == {
        "_stext": {0xFFFFFFFF81000000},
        "twice": {0xFFFFFFFF81000010, 0xFFFFFFFF81000020},
        "of_module": {0xFFFFFFFFC0000000},
        "last": {0xFFFFFFFFC0000010},
        "fixed_percpu_data": {0},
    }
