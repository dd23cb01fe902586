# SPDX-License-Identifier: Apache-2.0
"""``xdpkit monitor install``, ``remove`` and ``show``, where there is no terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.fates import guarded
from tests.kernel.killing import wait_until
from tests.kernel.net import Veth, make_veth
from tests.kernel.process import COMMAND, shipped
from tests.kernel.troubles import ABORTED, added, send
from tests.unit.cli.commands import Outcome, run
from xdpkit import Hook, monitor
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.monitor.resident import DEFAULT_RATE

pytestmark = pytest.mark.needs("bpf-link-xdp")

FRAMES = 30
NO_ACTION = guarded(asm.mov(Register.R0, 42), asm.exit())
CLOCK = re.compile(r"^\d\d:\d\d:\d\d  ", re.MULTILINE)
COST = "what it costs: nothing for packets without errors; about 50 ns for each error\n"
HINT = "xdpkit: errors are not counted; to count them: xdpkit monitor install\n"


@pytest.fixture(autouse=True)
def _is_built() -> None:
    shipped("monitor.o")


@pytest.fixture
def one(netns: str) -> Veth:
    """A veth pair with one queue."""
    return make_veth(netns, queues=1)


@pytest.fixture
def installed(pin_root: str) -> Iterator[None]:
    monitor.install(pin_root=pin_root)
    yield
    monitor.remove(pin_root=pin_root)


def command(verb: str, pin_root: str, *args: object) -> Outcome:
    return run("monitor", verb, "--pin-root", pin_root, *args)


def shown(veth: Veth, pin_root: str, *args: object) -> Outcome:
    return command("show", pin_root, "-n", veth.netns, veth.name, *args)


def test_it_is_installed_and_removed_and_says_what_it_costs(pin_root: str) -> None:
    done = command("install", pin_root)
    assert done.status == 0
    first, tracepoints, *others = done.output.splitlines(keepends=True)
    assert first == (
        "counted on the whole machine: errors until 'xdpkit monitor remove' or a reboot\n"
    )
    assert "xdp_exception" in tracepoints
    assert others[-1] == COST

    done = command("install", pin_root, "--transmit", "--rate", "5")
    assert done.output.startswith("counted on the whole machine: errors, and redirected frames,")
    assert "xdp_devmap_xmit" in done.output
    assert done.output.endswith(
        f"{COST}  and about 50 ns for each bulk of redirected frames, lost or not\n"
    )
    found = monitor.installed(pin_root=pin_root)
    assert found is not None
    assert found.rate == 5

    assert command("remove", pin_root).output == "removed\n"
    done = command("remove", pin_root)
    assert (done.status, done.output) == (0, "nothing was installed\n")
    assert monitor.installed(pin_root=pin_root) is None


def test_json_has_what_is_installed(pin_root: str) -> None:
    found = command("install", pin_root, "-j").json
    assert (found["schema"], found["groups"], found["rate"]) == (1, ["errors"], DEFAULT_RATE)
    assert command("remove", pin_root, "-j").json == {"schema": 1, "removed": True}
    assert command("remove", pin_root, "-j").json == {"schema": 1, "removed": False}


@pytest.mark.usefixtures("installed")
def test_once_prints_the_totals(one: Veth, pin_root: str) -> None:
    with added(one, pin_root, NO_ACTION, "firewall"):
        Hook(one.name, netns=one.netns, pin_root=pin_root).counters.enable()
        send(one, FRAMES)
        wait_until(lambda: f" {FRAMES} packets" in shown(one, pin_root, "--once").output)
        done = shown(one, pin_root, "--once")
    assert (done.status, done.messages) == (0, "")
    name = one.name
    assert CLOCK.sub("", done.output).splitlines() == [
        f"{name}: packets {FRAMES}, invalid {FRAMES}, errors {FRAMES}",
        f"{name}, firewall: packets {FRAMES}, invalid {FRAMES}",
        f"! {name}: firewall returned numbers that are no action, at last 42: {FRAMES} packets",
    ]


@pytest.mark.usefixtures("installed")
def test_rounds_have_rates_from_the_second_one_on(one: Veth, pin_root: str) -> None:
    with added(one, pin_root, ABORTED, "firewall"):
        Hook(one.name, netns=one.netns, pin_root=pin_root).counters.enable()
        send(one, FRAMES)
        options = ("--interval", "0.1", "--count", 2)
        done = shown(one, pin_root, *options)
        first, second = map(json.loads, shown(one, pin_root, "-j", *options).output.splitlines())
    lines = CLOCK.sub("", done.output).splitlines()
    assert len(lines) == 6
    assert not any("/s)" in line for line in lines[:3])
    assert all("(0/s)" in line for line in lines[3:])

    (before,), (after,) = (errors_on(one, each) for each in (first, second))
    assert (before["value"], before["per_second"]) == (FRAMES, None)
    assert (after["value"], after["per_second"]) == (FRAMES, 0.0)
    assert second["schema"] == 1
    assert second["taken_at"] > first["taken_at"]
    assert [each["program"] for each in second["programs"]] == ["firewall"]


def errors_on(veth: Veth, found: Any) -> list[Any]:
    return [
        each
        for each in found["samples"]
        if each["name"] == "xdpkit_errors" and each["labels"]["interface"] == veth.name
    ]


def test_without_resident_programs_it_says_how_to_have_them(one: Veth, pin_root: str) -> None:
    with added(one, pin_root, ABORTED, "firewall"):
        done = shown(one, pin_root, "--interval", "0.1", "--count", 2)
    assert done.messages == HINT
    assert [line.split(":")[-1] for line in done.output.splitlines()] == [" packets 0"] * 2


def test_a_namespace_without_programs_says_so(netns: str, pin_root: str) -> None:
    done = command("show", pin_root, "-n", netns, "--once")
    assert done.output == ""
    assert done.messages == (
        f"{HINT}xdpkit: no interface has an XDP program, or packets that a driver counts for XDP\n"
    )


@pytest.mark.parametrize("options", [[], ["-j"]], ids=["text", "json"])
def test_it_ends_well_at_a_signal(one: Veth, pin_root: str, options: list[str]) -> None:
    words = ["-n", one.netns, "monitor", "show", "--pin-root", pin_root, one.name, *options]
    with subprocess.Popen(
        [*COMMAND, *words, "--interval", "3600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
