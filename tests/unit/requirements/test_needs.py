# SPDX-License-Identifier: Apache-2.0
"""What programs of the corpus need; the analysis itself is tested beside it."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import xdpkit
from tests.corpus import build
from xdpkit import compiler
from xdpkit.errors import RequirementUnmet
from xdpkit.requirements import Requirements, needs_of


@functools.cache
def corpus(source: str) -> xdpkit.Object:
    compilers = build.compilers()
    if not compilers:
        pytest.skip("no BPF compiler: apt-get install clang")
    return xdpkit.read(build.build(build.FOLDER / source, compilers[0]).path)


def needs(program: str, source: str = "negotiated.c") -> Requirements:
    return needs_of(corpus(source).programs[program])


def names(found: Requirements) -> list[str]:
    return [item.capability for item in found]


def test_each_action_is_needed_with_its_line() -> None:
    found = needs("reflects")
    assert names(found) == ["action-drop", "action-tx"]
    for item in found:
        assert item.origin is not None
        assert item.origin.program == "reflects"
        assert str(item.origin).startswith("negotiated.c:")


def test_programs_in_an_open_array_are_not_known() -> None:
    spec = corpus("program_array.c").programs["constant_slot"]
    (unknown,) = needs_of(spec, open_maps={"jumps", "empty_jumps"}).of("action-any")
    assert "from tail call through jumps" in unknown.detail


def test_a_redirect_needs_the_action_the_map_and_the_helper() -> None:
    found = needs("to_ports")
    assert names(found) == [
        "action-drop",
        "action-redirect",
        "redirect-devmap",
        "helper:redirect_map",
        "map-type:devmap",
    ]
    (redirect,) = found.of("redirect-devmap")
    assert redirect.map == "tx_ports"
    assert redirect.label == "redirect into devmap tx_ports"


def test_each_kind_of_redirect_is_its_own() -> None:
    kinds = {
        "to_port": "redirect-devmap",
        "to_port_by_number": "redirect-devmap",
        "to_cpu": "redirect-cpumap",
        "to_socket": "redirect-xskmap",
    }
    for program, capability in kinds.items():
        assert needs(program, "maps_redirect.c").needs(capability), program


def test_a_constant_interface_is_known_and_follows_the_variable() -> None:
    obj = corpus("negotiated.c")
    before = obj.variables["neighbour"]
    obj.variables["neighbour"] = 7
    try:
        (redirect,) = needs("to_neighbour").of("redirect-ifindex")
    finally:
        obj.variables["neighbour"] = before
    assert redirect.ifindex == 7
    assert redirect.label == "redirect to an interface with index 7"


def test_a_value_from_a_map_may_be_any_and_declared_actions_excuse_it() -> None:
    found = needs("asks_a_map")
    (unknown,) = found.of("action-any")
    assert unknown.label == "may return any value (from map verdicts)"
    assert unknown.optional
    (declared,) = found.of("action-tx")
    assert declared.declared
    assert declared.origin is None
    assert found.notes == ()


def test_a_declaration_that_was_not_found_is_noted() -> None:
    assert needs("drops").notes == ("declares rx-hash, which was not found in the instructions",)
    assert needs("drops").of("rx-hash")[0].optional


def test_a_code_that_is_no_action_stands_among_the_actions() -> None:
    found = needs("mistaken")
    assert names(found) == ["action-pass", "action-code:42"]
    (code,) = found.of("action-code:42")
    assert code.label == "may return 42"
    assert str(code.origin).startswith("negotiated.c:")


def test_frags_are_taken_and_not_demanded() -> None:
    (frags,) = needs("with_frags").of("frags")
    assert frags.optional
    assert not needs("drops").needs("frags")


HINTS = """
#include <xdpkit.h>
SEC("xdp") int hints(struct xdp_md *ctx)
{
	__u64 timestamp;

	if (!bpf_xdp_metadata_rx_timestamp)
		return XDP_PASS;
	return bpf_xdp_metadata_rx_timestamp(ctx, &timestamp) ? XDP_DROP : XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


def test_metadata_kfuncs_are_hints_and_optional_where_they_are_weak(tmp_path: Path) -> None:
    source = tmp_path / "hints.c"
    source.write_text(HINTS)
    try:
        path = compiler.compile(source).path
    except RequirementUnmet as missing:
        pytest.skip(str(missing))
    found = needs_of(xdpkit.read(path).programs["hints"])
    assert {item.capability: item.optional for item in found} == {
        "action-drop": False,
        "action-pass": False,
        "rx-timestamp": True,
        "kfunc:bpf_xdp_metadata_rx_timestamp": True,
    }


PORTS = """
#include <xdpkit.h>
XDPKIT_PORTS;
XDPKIT_PORT_SET(guests);

static __noinline int port_of(struct xdpkit_md *ctx)
{
	return ctx->port_index;
}
SEC("xdp") int in_subprogram(struct xdpkit_md *ctx)
{
	return port_of(ctx) ? XDP_PASS : XDP_DROP;
}
SEC("xdp") int to_one(struct xdpkit_md *ctx)
{
	return xdpkit_redirect_to_port(1);
}
SEC("xdp") int to_others(struct xdpkit_md *ctx)
{
	return xdpkit_redirect_to_others();
}
SEC("xdp") int to_guests(struct xdpkit_md *ctx)
{
	return xdpkit_redirect_to_set(guests);
}
SEC("xdp") int length_and_cookie(struct xdpkit_md *ctx)
{
	return ctx->frame_len + ctx->cookie == 64 ? XDP_PASS : XDP_DROP;
}
SEC("xdp") int later(struct xdpkit_md *ctx)
{
	return *(__u32 *)((char *)ctx + 1100) ? XDP_PASS : XDP_DROP;
}
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} next SEC(".maps") = {.values = {(void *)&in_subprogram}};
SEC("xdp") int by_tail_call(struct xdpkit_md *ctx)
{
	bpf_tail_call(ctx, &next, 0);
	return XDP_DROP;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> xdpkit.Object:
    """Programs that read the extended context, and use a port table."""
    source = tmp_path_factory.mktemp("source") / "ports.c"
    source.write_text(PORTS)
    try:
        return xdpkit.read(compiler.compile(source).path)
    except RequirementUnmet as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("program", "capabilities", "line"),
    [
        ("in_subprogram", {"port-index"}, 8),
        ("by_tail_call", {"port-index"}, 8),
        ("to_one", {"port-table"}, None),
        ("to_others", {"port-table", "redirect-broadcast"}, None),
        ("to_guests", {"port-table", "port-set:guests", "redirect-broadcast"}, None),
        ("length_and_cookie", set(), None),
        ("later", {"context-field:offset 1100"}, 32),
    ],
)
def test_what_is_needed_of_a_port_table_is_found_with_its_lines(
    ports: xdpkit.Object, program: str, capabilities: set[str], line: int | None
) -> None:
    found = needs_of(ports.programs[program])
    begins = ("port-", "context-field:", "redirect-broadcast")
    of_ports = [item for item in found if item.capability.startswith(begins)]
    assert {item.capability for item in of_ports} == capabilities
    # The header's functions have lines of their own.
    assert all(str(item.origin).startswith(("ports.c:", "xdpkit.h:")) for item in of_ports)
    if line is not None:
        assert {str(item.origin) for item in of_ports} == {f"ports.c:{line}"}


def test_programs_that_tail_calls_reach_count() -> None:
    if not any(each.family == "clang" for each in build.compilers()):
        pytest.skip("no clang: apt-get install clang")
    found = needs("constant_slot", "program_array.c")
    # Slot 1 holds `target`, which returns XDP_PASS; the other array's contents are not known.
    assert found.needs("action-pass")
    assert found.needs("action-any")
    assert found.needs("map-type:prog_array")


def test_requirements_are_plain_data_for_json() -> None:
    data = needs("to_ports").to_dict()
    assert isinstance(data["needs"], list)
    assert data["needs"][2]["map"] == "tx_ports"
