# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from textwrap import dedent

import pytest

from tests.unit.btf.blobs import EVERY_KIND, kernel_btf, parse
from xdpkit.btf import Kind
from xdpkit.btf import types as t
from xdpkit.btf.format import format_declaration, format_type
from xdpkit.errors import ObjectFormatError

INT = t.Int("int", 4, 32, encoding=t.IntEncoding.SIGNED)
CHAR = t.Int("char", 1, 8, encoding=t.IntEncoding.SIGNED)


@pytest.mark.parametrize(
    ("values", "abstract", "named"),
    [
        ((), "int", "int x"),
        ((t.Ptr(1),), "int *", "int *x"),
        ((t.Ptr(3), t.Ptr(1)), "int **", "int **x"),
        ((t.Const(3), t.Ptr(1)), "int *const", "int *const x"),
        ((t.Ptr(3), t.Const(1)), "const int *", "const int *x"),
        ((t.Ptr(3), t.Const(4), t.Ptr(5), t.Const(1)), "const int *const *", "const int *const *x"),
        ((t.Const(3), t.Volatile(1)), "const volatile int", "const volatile int x"),
        ((t.Restrict(3), t.Ptr(1)), "int *restrict", "int *restrict x"),
        ((t.Array(1, 1, 4),), "int[4]", "int x[4]"),
        ((t.Array(3, 1, 2), t.Array(1, 1, 3)), "int[2][3]", "int x[2][3]"),
        ((t.Array(3, 1, 2), t.Ptr(1)), "int *[2]", "int *x[2]"),
        ((t.Ptr(3), t.Array(1, 1, 2)), "int (*)[2]", "int (*x)[2]"),
        ((t.Const(3), t.Array(1, 1, 2)), "const int[2]", "const int x[2]"),
        ((t.Array(3, 1, 2), t.Const(4), t.Ptr(1)), "int *const[2]", "int *const x[2]"),
        ((t.Array(1, 1, 0),), "int[0]", "int x[0]"),
        ((t.FuncProto(0),), "void (void)", "void x(void)"),
        (
            (t.FuncProto(1, (t.Param("fmt", 1), t.Param("", 0))),),
            "int (int fmt, ...)",
            "int x(int fmt, ...)",
        ),
        ((t.Ptr(3), t.FuncProto(0)), "void (*)(void)", "void (*x)(void)"),
        ((t.Array(3, 1, 2), t.Ptr(4), t.FuncProto(1)), "int (*[2])(void)", "int (*x[2])(void)"),
        (
            (t.Ptr(3), t.FuncProto(4), t.Ptr(5), t.Array(1, 1, 2)),
            "int (*(*)(void))[2]",
            "int (*(*x)(void))[2]",
        ),
        (
            (
                t.Ptr(3),
                t.FuncProto(0, (t.Param("done", 4),)),
                t.Ptr(5),
                t.FuncProto(0, (t.Param("", 1),)),
            ),
            "void (*)(void (*done)(int))",
            "void (*x)(void (*done)(int))",
        ),
        ((t.Typedef("__u32", 1),), "__u32", "__u32 x"),
        ((t.Array(3, 1, 4), t.Typedef("__u32", 1)), "__u32[4]", "__u32 x[4]"),
        ((t.Ptr(3), t.Fwd("sk_buff")), "struct sk_buff *", "struct sk_buff *x"),
        ((t.Ptr(3), t.Fwd("u", is_union=True)), "union u *", "union u *x"),
        ((t.Ptr(3), t.Enum("e", 4)), "enum e *", "enum e *x"),
        ((t.Ptr(3), t.Enum64("e", 8)), "enum e *", "enum e *x"),
        ((t.Float("double", 8),), "double", "double x"),
        (
            (t.Ptr(3), t.TypeTag("user", 1)),
            'int __attribute__((btf_type_tag("user"))) *',
            'int __attribute__((btf_type_tag("user"))) *x',
        ),
        (
            (t.Ptr(3), t.TypeTag("address_space(1)", 1, is_attribute=True)),
            "int __attribute__((address_space(1))) *",
            "int __attribute__((address_space(1))) *x",
        ),
    ],
)
def test_declarators_are_c(values: tuple[t.Type, ...], abstract: str, named: str) -> None:
    btf = parse(INT, *values)
    type_id = 2 if values else 1
    assert format_declaration(btf, type_id, "x") == named
    assert format_declaration(btf, type_id, "") == abstract


def test_a_struct_is_printed_with_its_members() -> None:
    btf = parse(
        INT,
        t.Struct("x", 4, (t.Member("inner", 1),)),
        t.Union("", 8, (t.Member("word", 4), t.Member("", 5))),
        t.Int("unsigned long", 8, 64),
        t.Struct("", 4, (t.Member("low", 1, 0, 4), t.Member("", 1, 4, 28))),
        t.FuncProto(1, (t.Param("ctx", 7),)),
        t.Ptr(8),
        t.Struct("hdr", 40, ()),
        t.Ptr(6),
        t.Array(1, 1, 2),
        t.Enum("", 4, values=(("A", 0), ("B", 1))),
        t.Struct(
            "hdr",
            40,
            (
                t.Member("x", 2),
                t.Member("", 3, 64),
                t.Member("handler", 9, 128),
                t.Member("ports", 10, 192),
                t.Member("state", 11, 256),
                t.Member("next", 7, 320 - 32),
            ),
        ),
    )
    assert format_type(btf, 12) == dedent("""\
        struct hdr {
            struct x x;
            union {
                unsigned long word;
                struct {
                    int low : 4;
                    int : 28;
                };
            };
            int (*handler)(struct hdr *ctx);
            int ports[2];
            enum {
                A = 0,
                B = 1,
            } state;
            struct hdr *next;
        } __attribute__((packed))""")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (t.Struct("s", 0), "struct s {}"),
        (t.Union("u", 4, (t.Member("a", 1),)), "union u {\n    int a;\n}"),
        (t.Enum("e", 4, True, (("A", -1),)), "enum e {\n    A = -1,\n}"),
        (t.Enum("e", 1, False, (("A", 1),)), "enum e {\n    A = 1,\n} __attribute__((packed))"),
        (t.Enum64("e", 8, False, (("A", 1 << 63),)), "enum e {\n    A = 9223372036854775808,\n}"),
        (t.Struct("s", 4, (t.Member("a", 3),)), "struct s {\n    int a : 3;\n}"),
        (t.Typedef("num", 1), "num"),
        (t.Var("v", 1, t.VarLinkage.STATIC), "static int v"),
        (t.Var("v", 1, t.VarLinkage.EXTERN), "extern int v"),
        (t.Func("f", 4, t.FuncLinkage.GLOBAL), "int f(int a)"),
        (t.Func("f", 4, t.FuncLinkage.STATIC), "static int f(int a)"),
        (t.Func("f", 4, t.FuncLinkage.EXTERN), "extern int f(int a)"),
        (t.Datasec(".data", 4, (t.SectionVar(5, 0, 4),)), "/* .data */\nint count;"),
        (t.DeclTag('say "hi"', 5), '__attribute__((btf_decl_tag("say \\"hi\\"")))'),
        (t.DeclTag("noreturn", 5, -1, is_attribute=True), "__attribute__((noreturn))"),
        (t.Typedef("bad\x1b[2J", 1), "bad\\x1b[2J"),
    ],
)
def test_each_kind_has_its_text(value: t.Type, text: str) -> None:
    btf = parse(
        INT, CHAR, t.Int("int", 4, 3), t.FuncProto(1, (t.Param("a", 1),)), t.Var("count", 1), value
    )
    assert format_type(btf, 6) == text


def test_void_is_printed() -> None:
    assert format_type(parse(), 0) == "void"
    assert format_declaration(parse(t.Ptr(0)), 1, "p") == "void *p"


def test_every_kind_can_be_printed() -> None:
    btf = parse(*EVERY_KIND)
    assert all(format_type(btf, type_id) for type_id in range(len(btf)))


def test_what_is_no_type_cannot_be_part_of_one() -> None:
    btf = parse(INT, t.Var("v", 1), t.Ptr(2))
    with pytest.raises(ObjectFormatError, match="a VAR cannot be part of a type"):
        format_type(btf, 3)


def test_text_without_end_is_refused() -> None:
    nested = (t.Struct("", 4, (t.Member("", depth),) * 20) for depth in range(1, 20))
    values: tuple[t.Type, ...] = (INT, *nested)
    with pytest.raises(ObjectFormatError, match="too long to be printed"):
        format_type(parse(*values), len(values))


@pytest.mark.parametrize(
    "values",
    [
        (t.Ptr(1),),
        (t.Ptr(2), t.FuncProto(0, (t.Param("self", 1),))),
        (t.Struct("", 4, (t.Member("self", 1),)),),
    ],
)
def test_types_without_end_are_refused(values: tuple[t.Type, ...]) -> None:
    with pytest.raises(ObjectFormatError, match=r"nested too deeply|contains itself"):
        format_type(parse(*values), 1)


def test_a_struct_of_the_kernel_is_as_its_headers_have_it() -> None:
    btf = kernel_btf()
    (xdp_md,) = btf.find("xdp_md", Kind.STRUCT)
    assert format_type(btf, xdp_md) == dedent("""\
        struct xdp_md {
            __u32 data;
            __u32 data_end;
            __u32 data_meta;
            __u32 ingress_ifindex;
            __u32 rx_queue_index;
            __u32 egress_ifindex;
        }""")
