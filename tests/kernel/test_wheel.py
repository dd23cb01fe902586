# SPDX-License-Identifier: Apache-2.0
"""The wheel is enough: in a fresh environment, with no compiler and no header in reach."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.wheels import ROOT, build, copy_sources, run


@dataclass(frozen=True, slots=True)
class Installed:
    """A fresh environment with the wheel in it."""

    prefix: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run one of its programs where there is no other program, and /usr/include is empty."""
        hide = 'mount -t tmpfs none /usr/include && exec env -i PATH="$0" "$@"'
        bin_ = self.prefix / "bin"
        return run("unshare", "--mount", "sh", "-c", hide, bin_, bin_ / program, *arguments)

    @property
    def demo(self) -> str:
        script = "import xdpkit, pathlib; print(pathlib.Path(xdpkit.__file__).parent)"
        return f"{self.run('python', '-c', script).strip()}/_bpf/demo.o"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that nothing in the working tree changes hands."""
    return build(copy_sources(tmp_path_factory.mktemp("tree")))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    prefix = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", prefix)
    run(prefix / "bin" / "python", "-m", "pip", "install", wheel)
    return Installed(prefix)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with an interface called veth0."""
    name = f"xdpkit-wheel-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
        run("ip", "-n", name, "link", "set", "veth0", "up")
        yield name
    finally:
        run("ip", "netns", "delete", name)


def program_id(namespace: str) -> int | None:
    (link,) = json.loads(run("ip", "-n", namespace, "-j", "link", "show", "dev", "veth0"))
    found: int | None = link.get("xdp", {}).get("prog", {}).get("id")
    return found


def test_the_wheel_carries_programs_header_and_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    objects = {f"xdpkit/_bpf/{source.stem}.o" for source in (ROOT / "bpf").glob("*.c")}
    examples = sorted((ROOT / "src/xdpkit/examples").glob("*.c"))
    assert objects
    assert [each.name for each in examples] == ["router.c", "switch.c"]
    objects |= {f"xdpkit/_bpf/{source.stem}.o" for source in examples}
    texts = {f"xdpkit/examples/{source.name}" for source in examples}
    assert names >= objects | texts | {"xdpkit/include/xdpkit.h", "xdpkit/py.typed"}


def test_there_is_nothing_to_compile_with(installed: Installed) -> None:
    script = (
        "import os; from xdpkit.compiler import find_compilers; "
        "print(find_compilers(), os.listdir('/usr/include'))"
    )
    assert installed.run("python", "-c", script) == "() []\n"


def test_a_program_is_attached_and_detached_by_the_installed_command(
    installed: Installed, namespace: str
) -> None:
    assert program_id(namespace) is None
    installed.run("xdpkit", "attach", "--netns", namespace, "veth0", installed.demo)
    assert program_id(namespace) is not None
    assert "firewall" in installed.run("xdpkit", "status", "--netns", namespace)
    installed.run("xdpkit", "detach", "--netns", namespace, "veth0")
    assert program_id(namespace) is None


def test_a_program_is_attached_for_a_while_by_the_installed_package(
    installed: Installed, namespace: str
) -> None:
    script = (
        "import sys, xdpkit\n"
        "program = xdpkit.read(sys.argv[1]).programs['firewall']\n"
        "with xdpkit.attach('veth0', program, netns=sys.argv[2]) as attached:\n"
        "    print(attached.program.id, len(attached.maps['hits'][0]) > 0)\n"
    )
    output = installed.run("python", "-c", script, installed.demo, namespace)
    assert output.split()[1] == "True"
    assert program_id(namespace) is None
