# SPDX-License-Identifier: Apache-2.0
"""What programs of the corpus do once they run: with variables set, and maps typed by BTF."""

from __future__ import annotations

import pytest

import xdpkit
from tests.corpus import build
from xdpkit import Collection, Object, XdpAction
from xdpkit.kernel.testrun import XdpContext

COMPILERS = [
    pytest.param(compiler, id=compiler.name)
    for compiler in build.compilers()
    if compiler.family != "gcc-bpf"
]
IPV6_FRAME = bytes(12) + b"\x86\xdd" + bytes(46)
IPV4_FRAME = bytes(12) + b"\x08\x00" + bytes(46)


@pytest.fixture(params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> build.Compiler:
    chosen: build.Compiler = request.param
    return chosen


def read(name: str, compiler: build.Compiler) -> Object:
    return xdpkit.read(build.build(build.FOLDER / f"{name}.c", compiler).path)


def test_a_constant_that_is_set_before_the_load_changes_what_a_program_does(
    compiler: build.Compiler,
) -> None:
    obj = read("packet", compiler)
    with xdpkit.load_all(obj) as before:
        assert before.programs["packet"].run(IPV6_FRAME).action is XdpAction.DROP
        assert before.programs["packet"].run(IPV4_FRAME).action is XdpAction.PASS
    obj.variables["blocked_protocol"] = 0x0008
    with xdpkit.load_all(obj) as after:
        assert after.programs["packet"].run(IPV6_FRAME).action is XdpAction.PASS
        assert after.programs["packet"].run(IPV4_FRAME).action is XdpAction.DROP


def test_variables_of_every_kind_reach_the_program(compiler: build.Compiler) -> None:
    obj = read("variables", compiler)
    variables = obj.variables
    variables["result_code"] = XdpAction.TX
    variables["negative"] = -100
    variables["hidden_constant"] = 7
    variables["table"] = [50, 0, 0, 0]
    variables["current"] = {
        **as_dict(variables["current"]),
        "delta": 1000,
        "range": [{"low": 21, "high": 0}, {"low": 22, "high": 0}],
    }
    variables["small_state"] = 0xF0
    with xdpkit.load_all(obj) as loaded:
        result = loaded.programs["variables"].run(IPV4_FRAME)
        after = contents(obj, loaded)
    assert result.action is XdpAction.TX
    assert after["counted"] == 1
    assert after["calls"] == 50
    assert after["small_state"] == 0xF1
    assert after["signed_result"] == -100 + 4
    zeroed = as_dict(after["zeroed"])
    assert zeroed["delta"] == 1007
    assert zeroed["range"] == [{"low": 0, "high": 0}, {"low": 21, "high": 0}]


def test_a_program_array_and_a_map_of_maps_hold_what_the_source_says(
    compiler: build.Compiler,
) -> None:
    with xdpkit.load_all(read("program_array", compiler)) as loaded:
        programs = loaded.programs
        assert programs["constant_slot"].run(IPV4_FRAME).action is XdpAction.PASS
        assert programs["from_subprogram"].run(IPV4_FRAME).action is XdpAction.PASS
        assert dict(loaded.maps["jumps"]) == {1: programs["target"].id, 5: programs["other"].id}
    with xdpkit.load_all(read("maps_of_maps", compiler)) as loaded:
        loaded.programs["maps_of_maps"].run(IPV4_FRAME)
        assert loaded.maps["first"][0] == 1
        assert loaded.maps["second"][0] == 2
        assert set(dict(loaded.maps["table"]).values()) == {
            loaded.maps["first"].id,
            loaded.maps["second"].id,
        }


def test_keys_and_values_have_the_types_of_the_source(compiler: build.Compiler) -> None:
    with xdpkit.load_all(read("maps_hash", compiler)) as loaded:
        program = loaded.programs["maps_hash"]
        for _ in range(3):
            program.run(IPV4_FRAME, context=XdpContext(ingress_ifindex=1))
        flows = loaded.maps["flows"]
        ((flow, counters),) = flows.items()
        assert flow == {
            "source": 1,
            "destination": 0,
            "ports": [0, 0],
            "protocol": 17,
            "padding": bytes(3) if isinstance(flow["padding"], bytes) else [0, 0, 0],
        }
        assert counters["packets"] == 1
        assert counters["bits"] == {"first": 2, "second": 0}
        flows[{**flow, "protocol": 6}] = {**counters, "last": -7}
        assert flows[{**flow, "protocol": 6}]["last"] == -7
        assert dict(loaded.maps["recent"]) == {bytes(8): bytes(24)}
    with xdpkit.load_all(read("maps_lpm", compiler)) as loaded:
        prefixes = loaded.maps["prefixes"]
        assert loaded.programs["maps_lpm"].run(IPV4_FRAME).action is XdpAction.PASS
        prefixes[{"prefixlen": 8, "data": [10, 0, 0, 0]}] = XdpAction.DROP
        assert loaded.programs["maps_lpm"].run(IPV4_FRAME).action is XdpAction.DROP


def test_a_per_cpu_value_is_a_list_with_a_value_for_each_cpu(compiler: build.Compiler) -> None:
    with xdpkit.load_all(read("packet", compiler)) as loaded:
        for _ in range(5):
            loaded.programs["packet"].run(IPV4_FRAME)
        hits = loaded.maps["hits"]
        assert sum(hits[0]) == 5
        assert hits[1] == [0] * len(hits[0])


def test_a_callback_and_a_loop_run_as_often_as_they_should(compiler: build.Compiler) -> None:
    with xdpkit.load_all(read("callbacks", compiler)) as loaded:
        program = loaded.programs["callbacks"]
        # Three times the sum of 0 … 9, and nothing in the map: odd.
        assert program.run(IPV4_FRAME).action is XdpAction.DROP
        loaded.maps["entries"][7] = 3
        assert program.run(IPV4_FRAME).action is XdpAction.PASS


def test_the_kernels_configuration_reaches_a_program(compiler: build.Compiler) -> None:
    with xdpkit.load_all(read("kconfig", compiler)) as loaded:
        assert loaded.programs["kconfig"].run(IPV4_FRAME).action is XdpAction.PASS


def test_kernel_functions_are_called_and_absent_weak_ones_are_not(
    compiler: build.Compiler,
) -> None:
    with xdpkit.load_all(read("kfuncs", compiler)) as loaded:
        assert loaded.programs["kfuncs"].run(IPV4_FRAME).action is XdpAction.PASS
        assert loaded.programs["only_weak"].run(IPV4_FRAME).action is XdpAction.PASS
    with xdpkit.load_all(read("ksym_variables", compiler)) as loaded:
        assert loaded.programs["ksym_variables"].run(IPV4_FRAME).action is XdpAction.PASS


def test_an_exception_goes_to_the_callback_that_the_program_names(
    compiler: build.Compiler,
) -> None:
    obj = read("beyond/exception_callback", compiler)
    with xdpkit.load_all(obj) as loaded:
        assert loaded.programs["exception_callback"].run(IPV4_FRAME).action is XdpAction.TX
        assert contents(obj, loaded)["thrown"] == 33


def test_a_program_with_another_license_may_not_use_what_is_for_the_gpl(
    compiler: build.Compiler,
) -> None:
    with xdpkit.load_all(read("version", compiler)) as loaded:
        (program,) = loaded.programs.values()
        assert program.name.startswith("a_function_name")
        assert not program.info().gpl_compatible
        assert program.run(IPV4_FRAME).action is XdpAction.DROP


def contents(obj: Object, loaded: Collection) -> dict[str, object]:
    """Return the variables as the running program left them."""
    from xdpkit.btf.values import decode_value

    assert obj.btf is not None
    found = {}
    for name in obj.variables:
        variable = obj.variables.describe(name)
        data = raw_value(loaded, variable.section)
        piece = data[variable.offset : variable.offset + variable.size]
        found[name] = decode_value(obj.btf, variable.type_id, piece)
    return found


def raw_value(loaded: Collection, section: str) -> bytes:
    from xdpkit.syscalls import bpf

    item = loaded.maps[section]
    data = bpf.map_lookup(item.fileno(), bytes(4), item.value_size)
    assert data is not None
    return data


def as_dict(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
