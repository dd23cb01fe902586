# SPDX-License-Identifier: Apache-2.0
"""Configuration values as contents of the ``.kconfig`` map."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpkit.btf import Btf, types
from xdpkit.btf.builder import BtfBuilder
from xdpkit.btf.types import IntEncoding
from xdpkit.errors import ObjectFormatError, RequirementUnmet
from xdpkit.kernel import kconfig
from xdpkit.obj import Extern, ExternKind


class _Types:
    """The types that an extern may have, by name."""

    def __init__(self) -> None:
        builder = BtfBuilder()
        char = builder.add(types.Int("char", 1, 8, encoding=IntEncoding.SIGNED))
        self.ids = {
            "char": char,
            "bool": builder.add(types.Int("_Bool", 1, 8, encoding=IntEncoding.BOOL)),
            "u16": builder.add(types.Int("unsigned short", 2, 16)),
            "int": builder.add(types.Int("int", 4, 32, encoding=IntEncoding.SIGNED)),
            "u64": builder.add(types.Int("unsigned long", 8, 64)),
            "tristate": builder.add(
                types.Enum("libbpf_tristate", 4, values=(("TRI_NO", 0), ("TRI_YES", 1)))
            ),
            "struct": builder.add(types.Struct("pair", 8, ())),
        }
        index = self.ids["int"]
        self.ids["text"] = builder.add(types.Array(char, index, 8))
        self.ids["ints"] = builder.add(types.Array(index, index, 2))
        self.btf = Btf.parse(builder.build())
        self.sizes = {name: self.btf.sizeof(number) for name, number in self.ids.items()}


TYPES = _Types()


def _contents(kind: str, text: str | None, *, name: str = "CONFIG_X", weak: bool = False) -> bytes:
    extern = Extern(
        name=name,
        kernel_name=name,
        kind=ExternKind.KCONFIG,
        is_weak=weak,
        type_id=TYPES.ids[kind],
        size=TYPES.sizes[kind],
    )
    return kconfig.contents(
        [extern],
        TYPES.btf,
        extern.size,
        configuration={} if text is None else {"CONFIG_X": text},
        known={"LINUX_KERNEL_VERSION": lambda: 0x60C03},
    )


@pytest.mark.parametrize(
    ("kind", "text", "data"),
    [
        ("bool", "y", b"\1"),
        ("bool", "n", b"\0"),
        ("tristate", "n", b"\0\0\0\0"),
        ("tristate", "y", b"\1\0\0\0"),
        ("tristate", "m", b"\2\0\0\0"),
        ("char", "m", b"m"),
        ("char", "7", b"\7"),
        ("u16", "0xffff", b"\xff\xff"),
        ("int", "-5", b"\xfb\xff\xff\xff"),
        ("int", "250", b"\xfa\0\0\0"),
        ("u64", "0xffffffff80000000", b"\0\0\0\x80\xff\xff\xff\xff"),
        ("text", '"abc"', b"abc\0\0\0\0\0"),
        ("text", '""', bytes(8)),
        ("text", '"longer than that"', b"longer \0"),
    ],
)
def test_a_value_is_stored_as_its_type_has_it(kind: str, text: str, data: bytes) -> None:
    assert _contents(kind, text) == data


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bool", "m"),
        ("bool", "1"),
        ("tristate", "1"),
        ("int", "y"),
        ("int", '"abc"'),
        ("int", "0x80000000"),
        ("u16", "65536"),
        ("u16", "-1"),
        ("char", "200"),
        ("text", "y"),
        ("text", "12"),
        ("text", '"open'),
        ("int", "12abc"),
    ],
)
def test_a_value_that_the_type_cannot_hold_is_refused(kind: str, text: str) -> None:
    with pytest.raises(RequirementUnmet, match="CONFIG_X"):
        _contents(kind, text)


def test_what_is_not_configured_is_an_error_unless_weak() -> None:
    with pytest.raises(RequirementUnmet, match="__weak"):
        _contents("int", None)
    assert _contents("int", None, weak=True) == bytes(4)


def test_virtual_values_come_from_the_loader() -> None:
    assert _contents("int", None, name="LINUX_KERNEL_VERSION") == b"\x03\x0c\x06\0"
    assert _contents("int", None, name="LINUX_UNHEARD_OF", weak=True) == bytes(4)
    with pytest.raises(RequirementUnmet):
        _contents("int", None, name="LINUX_UNHEARD_OF")


def test_other_names_are_the_objects_mistake() -> None:
    with pytest.raises(ObjectFormatError, match="CONFIG_ or LINUX_"):
        _contents("int", None, name="HZ", weak=True)


@pytest.mark.parametrize("kind", ["struct", "ints"])
def test_types_that_cannot_hold_a_value_are_the_objects_mistake(kind: str) -> None:
    with pytest.raises(ObjectFormatError, match="cannot hold"):
        _contents(kind, "1")


def test_a_configuration_file_is_read_by_name() -> None:
    text = '# Linux\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="a=b"\nCONFIG_D=\nOTHER=1\n'
    assert kconfig.parse(text) == {"CONFIG_A": "y", "CONFIG_C": '"a=b"'}


@given(st.sampled_from(sorted(TYPES.ids)), st.text(min_size=1, max_size=20))
def test_any_text_is_stored_or_refused(kind: str, text: str) -> None:
    try:
        data = _contents(kind, text)
    except (RequirementUnmet, ObjectFormatError):
        return
    assert len(data) == TYPES.sizes[kind]
