# SPDX-License-Identifier: Apache-2.0
"""The exporter as a process, and what a real Prometheus makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kernel import fates
from tests.kernel.attaching import program
from tests.kernel.fates import FENCE, PacketPort, frame
from tests.kernel.killing import wait_until
from tests.kernel.multiqueue import line_into
from tests.kernel.net import Veth, make_veth, rtnetlink
from tests.kernel.process import COMMAND, POWERLESS, shipped, xdpkit_command
from xdpkit import Hook, monitor
from xdpkit.errors import XdpkitError
from xdpkit.interfaces import resolve
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Map
from xdpkit.monitor.export import HEALTH, exposed_name
from xdpkit.monitor.samples import METRICS
from xdpkit.ports import PortTable
from xdpkit.syscalls import bpf
from xdpkit.syscalls.netns import entered
from xdpkit.uapi.bpf import AttachType, MapType, PseudoSrc
from xdpkit.uapi.if_link import XdpFlags

EXAMPLES = Path(__file__).parents[2] / "examples/monitoring"

# What the dashboard's variables stand for if everything is chosen, and times that a test can wait.
VARIABLES = {
    "$instance": ".*",
    "$netns": ".*",
    "$interface": ".*",
    "$__rate_interval": "10s",
    "$__range": "1m",
}

_LONG_S = 20.0
_NO_INTERFACE = 1 << 20
_PROMETHEUS_PORT = 9090


@pytest.fixture
def host(netns: str) -> str:
    """A namespace where processes find each other at 127.0.0.1, and no others do."""
    with rtnetlink(netns) as connection:
        (lo,) = connection.link_lookup(ifname="lo")
        connection.link("set", index=lo, state="up")
    return netns


def fetch(netns: str, port: int, path: str, **headers: str) -> tuple[int, str]:
    """Return the status and the text of a page of 127.0.0.1 in a namespace."""
    connection = HTTPConnection("127.0.0.1", port)
    with entered(netns):
        connection.sock = socket.create_connection(("127.0.0.1", port), _LONG_S)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


class Exporting:
    """``xdpkit export`` in a namespace."""

    def __init__(self, netns: str, pin_root: str, messages: Path, *args: str) -> None:
        self.netns = netns
        self._path = messages
        # It listens where it runs.
        command = (*COMMAND, "export", "--listen", "127.0.0.1:0", "--pin-root", pin_root, *args)
        with entered(netns), messages.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self.process.stdout is not None
        self.place = self.process.stdout.readline().strip()

    @property
    def port(self) -> int:
        assert self.place, self.messages
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/metrics", self.place)
        assert found is not None, self.place
        return int(found[1])

    @property
    def messages(self) -> str:
        """What it said on standard error."""
        return self._path.read_text()

    def page(self, **headers: str) -> str:
        status, text = fetch(self.netns, self.port, "/metrics", **headers)
        assert status == 200
        return text

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=_LONG_S)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


Export = Callable[..., Exporting]


@pytest.fixture
def export(host: str, pin_root: str, tmp_path: Path) -> Iterator[Export]:
    """Starts ``xdpkit export ARGS``; it ends with the test."""
    with ExitStack() as running:

        def start(*args: str) -> Exporting:
            return running.enter_context(Exporting(host, pin_root, tmp_path / "messages", *args))

        yield start


def values(page: str) -> dict[str, dict[str, float]]:
    """Return the numbers on a page by name, and by the labels in words."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = " ".join(value for value in sample.labels.values() if value)
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def meet(
    veth: Veth, code: bytes, resources: ExitStack, *, frames: int = 3, mode: str = "native"
) -> None:
    """Send frames past a program; wait until it has met them all."""
    resources.enter_context(fates.attached(code, veth.name, veth.netns, mode))
    with (
        contextlib.closing(PacketPort(veth.peer, veth.netns)) as outside,
        contextlib.closing(PacketPort(veth.name, veth.netns)) as inside,
    ):
        for _ in range(frames):
            outside.send(frame())
        outside.send(frame(FENCE))
        while (came := inside.receive(wait=True)) != frame(FENCE):
            assert came is not None


def one_of_each(netns: str, pin_root: str, resources: ExitStack) -> None:
    """Let happen what makes a series of each metric, in veths of a namespace."""
    shipped("monitor.o")
    monitor.install(transmit=True, pin_root=pin_root)
    resources.callback(monitor.remove, pin_root=pin_root)

    served = make_veth(netns)
    hook = Hook(served.name, netns=netns, pin_root=pin_root)
    hook.counters.enable(count_bytes=True)
    resources.enter_context(contextlib.closing(hook.queues[1].add(program())))
    line = resources.enter_context(line_into(served))
    line.send(0, 3)
    line.send(1, 4)
    wait_until(lambda: line.passed() == 7)

    aborting, absent, devmapped, cpumapped = (make_veth(netns, queues=1) for _ in range(4))
    meet(aborting, fates.returning(0), resources)
    meet(absent, fates.redirecting(_NO_INTERFACE), resources)
    for veth, kind, target in (
        # What goes out there comes in where there is a program, which veth asks for.
        (devmapped, MapType.DEVMAP, resolve(served.peer, netns=netns).index),
        (cpumapped, MapType.CPUMAP, 64),
    ):
        entries = resources.enter_context(
            Map.create(kind, key_size=4, value_size=4, max_entries=1, name="targets")
        )
        # An interface is looked up where the caller is.
        with entered(netns):
            entries[0] = struct.pack("=I", target)
        meet(veth, fates.redirecting_by(entries.fileno()), resources)
    # Two modes exclude each other.
    with (
        fates.load(fates.returning(2)) as loaded,
        entered(netns),
        pytest.raises(XdpkitError),
    ):
        bpf.link_create(
            loaded.fileno(), aborting.interface.index, AttachType.XDP, XdpFlags.SKB_MODE
        )
    lose_on_a_port(netns, pin_root, resources)


def lose_on_a_port(netns: str, pin_root: str, resources: ExitStack) -> None:
    """Make a port table, and lose frames to its port: alone, and by a broadcast that fails."""
    table = resources.enter_context(PortTable.create("lan", pin_root=pin_root))
    resources.callback(table.destroy, force=True)
    port = make_veth(netns, queues=1)
    table.add(port.name, netns=netns, force=True)
    with rtnetlink(netns) as connection:
        connection.link("set", ifname=port.name, state="down")
    broadcast = fates.guarded(
        asm.ld_imm64(Register.R1, table.maps["xdpkit_ports"].fileno(), source=PseudoSrc.MAP_FD),
        # A key that is no port's, and BPF_F_BROADCAST.
        asm.mov(Register.R2, -1),
        asm.mov(Register.R3, 8),
        asm.call("redirect_map"),
        asm.exit(),
    )
    for code in (fates.redirecting_by(table.maps["xdpkit_ports"].fileno()), broadcast):
        meet(make_veth(netns, queues=1), code, resources, mode="generic")


class Prometheus:
    """A real one, in a namespace."""

    def __init__(self, netns: str, folder: Path, target: int) -> None:
        self._netns = netns
        config = folder / "prometheus.yml"
        text = (EXAMPLES / "prometheus.yml").read_text()
        config.write_text(
            text.replace("127.0.0.1:9435", f"127.0.0.1:{target}").replace("15s", "200ms")
        )
        self._log = folder / "prometheus.log"
        with entered(netns), self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{_PROMETHEUS_PORT}",
                ],
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(self._is_ready, self._log.read_text)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return fetch(self._netns, _PROMETHEUS_PORT, "/-/ready")[0] == 200
        return False

    def ask(self, query: str) -> list[Any]:
        path = f"/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        status, text = fetch(self._netns, _PROMETHEUS_PORT, path)
        assert status == 200, text
        found: list[Any] = json.loads(text)["data"]["result"]
        return found

    def values_of(self, label: str) -> set[str]:
        _, text = fetch(self._netns, _PROMETHEUS_PORT, f"/api/v1/label/{label}/values")
        return set(json.loads(text)["data"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(_LONG_S)


def queries() -> list[str]:
    """Return the dashboard's queries, with the variables filled in."""
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            assert "$" not in query
            found.append(query)
    return found


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="apt-get install prometheus")
@pytest.mark.needs("bpf-link-xdp")
def test_a_real_prometheus_has_an_answer_to_each_query_of_the_dashboard(
    host: str, pin_root: str, tmp_path: Path, export: Export
) -> None:
    with ExitStack() as resources:
        exporting = export()
        # It takes five seconds before its first scrape (scrape.Manager), so it comes early.
        prometheus = resources.enter_context(Prometheus(host, tmp_path, exporting.port))
        one_of_each(host, pin_root, resources)
        wait_until(lambda: "xdpkit_monitor_installed 1.0\n" in exporting.page())
        page = exporting.page()
        promtool = subprocess.run(
            ["promtool", "check", "metrics"],
            input=page,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (promtool.returncode, promtool.stdout, promtool.stderr) == (0, "", "")
        assert set(values(page)) == {exposed_name(each) for each in (*METRICS, *HEALTH)}

        prometheus.wait()
        waiting = queries()

        def all_answered() -> bool:
            waiting[:] = [query for query in waiting if not prometheus.ask(query)]
            return not waiting

        wait_until(all_answered, lambda: "\n".join(["no data:", *waiting]))
        assert "xdpkit_errors_total" in prometheus.values_of("__name__")
        # Without a namespace: other tests may lose packets in theirs.
        (errors,) = prometheus.ask('xdpkit_errors_total{reason="aborted",netns=""}')
        assert errors["value"][1] == "3"
        assert exporting.messages == ""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
def test_promtool_takes_the_example_of_a_configuration() -> None:
    config = EXAMPLES / "prometheus.yml"
    done = subprocess.run(
        ["promtool", "check", "config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_interface_that_goes_takes_only_its_own_numbers_along(host: str, export: Export) -> None:
    one, other = make_veth(host), make_veth(host)
    exporting = export(one.name, other.name)

    def interfaces() -> set[str]:
        found = values(exporting.page())["xdpkit_driver_packets_total"]
        return {labels.split()[2] for labels in found}

    assert interfaces() == {one.name, other.name}
    with rtnetlink(host) as connection:
        connection.link("del", ifname=one.name)
    wait_until(lambda: interfaces() == {other.name})
    page = values(exporting.page())
    assert page["xdpkit_export_errors_total"][""] >= 1
    (said,) = exporting.messages.splitlines()
    assert said.startswith(f"xdpkit: {one.name} cannot be looked at: ")
    assert exporting.stop() == 0


def test_many_who_ask_at_once_are_answered(export: Export) -> None:
    exporting = export()
    pages: list[str] = []
    clients = [threading.Thread(target=lambda: pages.append(exporting.page())) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(_LONG_S)
    assert len(pages) == 8
    assert all("xdpkit_monitor_installed 0.0\n" in page for page in pages)


def test_openmetrics_is_there_for_who_asks(export: Export) -> None:
    assert export().page(Accept="application/openmetrics-text").endswith("\n# EOF\n")


def test_a_program_that_starts_it_reads_the_url_as_json(export: Export) -> None:
    told = json.loads(export("--json").place)
    assert told["schema"] == 1
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", told["url"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_without_a_word(export: Export, number: signal.Signals) -> None:
    exporting = export()
    with entered(exporting.netns):
        idle = socket.create_connection(("127.0.0.1", exporting.port), _LONG_S)
    with idle:
        assert exporting.stop(number) == 0
    assert exporting.messages == ""


def test_a_port_in_use_is_refused(host: str, pin_root: str) -> None:
    with entered(host), socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = xdpkit_command("export", "--pin-root", pin_root, "--listen", address)
    assert (done.status, done.output) == (4, "")
    assert done.messages == (
        f"xdpkit: listen on {address}: another process listens there (EADDRINUSE)\n"
        "Remedy: choose another port: --listen 127.0.0.1:0 takes any free one\n"
    )


def test_a_namespace_that_is_not_there_is_refused_before_anything_is_served(
    pin_root: str,
) -> None:
    done = xdpkit_command("export", "-n", "no-such", "--listen", "127.0.0.1:0")
    assert (done.status, done.output) == (2, "")
    assert "no-such" in done.messages


def test_another_namespace_is_looked_at_from_here(veth: Veth, pin_root: str) -> None:
    done = xdpkit_command("export", "-n", veth.netns, "--pin-root", pin_root, "--once", veth.name)
    assert (done.status, done.messages) == (0, "")
    found = values(done.output)["xdpkit_driver_packets_total"]
    assert {labels.split()[2] for labels in found} == {veth.name}


def bounded_by(unit: str) -> tuple[str, ...]:
    """Return a command that runs others with the capabilities of an example's unit."""
    found = re.search(r"^CapabilityBoundingSet=(.+)$", (EXAMPLES / unit).read_text(), re.MULTILINE)
    assert found is not None
    names = [name.removeprefix("CAP_").lower() for name in found[1].split()]
    bounding = ",".join(["-all", *(f"+{name}" for name in names)])
    return ("setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="apt-get install util-linux")
@pytest.mark.needs("bpf-link-xdp")
def test_the_capabilities_of_the_exporters_unit_are_enough(host: str, pin_root: str) -> None:
    by = bounded_by("xdpkit-export.service")
    with ExitStack() as resources:
        one_of_each(host, pin_root, resources)
        with entered(host):
            done = xdpkit_command("export", "--once", "--pin-root", pin_root, by=by)
    assert (done.status, done.messages) == (0, "")
    assert set(values(done.output)) == {exposed_name(each) for each in (*METRICS, *HEALTH)}


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="apt-get install util-linux")
def test_the_capabilities_of_the_monitors_unit_are_enough(pin_root: str) -> None:
    shipped("monitor.o")
    by = bounded_by("xdpkit-monitor.service")
    for verb, installed in (("install", True), ("remove", False)):
        done = xdpkit_command("monitor", verb, "--pin-root", pin_root, by=by)
        assert done.status == 0, done.messages
        assert (monitor.installed(pin_root=pin_root) is not None) == installed


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="apt-get install util-linux")
def test_without_privilege_what_cannot_be_read_is_said(pin_root: str, netns: str) -> None:
    os.mkdir(f"{pin_root}/xdpkit", 0o700)
    done = xdpkit_command("export", "--once", "-n", netns, "--pin-root", pin_root, by=POWERLESS)
    assert done.status == 7
    assert "CAP_SYS_ADMIN" in done.messages
