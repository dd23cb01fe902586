# SPDX-License-Identifier: Apache-2.0
"""Records of another version: shown, and changed only where nothing of theirs is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.attaching import program
from tests.kernel.net import Veth
from tests.kernel.wheels import ROOT, build, copy_sources
from xdpkit import Program, __version__
from xdpkit.hook.counters import Counters
from xdpkit.hook.place import Place

LATER = "99.0.0"
EARLIER = "0.0.1"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of xdpkit that can be run, with the number that it writes into its last field."""

    folder: Path
    number: str
    priority: int = 0

    def run(self, veth: Veth, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb on the interface."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "XDPKIT_PRIORITY": str(self.priority),
        }
        command = [sys.executable, "-P", "-m", "xdpkit", "-n", veth.netns, "-j", verb, veth.name]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=environment, check=False
        )

    def do(self, veth: Veth, verb: str, *arguments: str) -> Any:
        """Run a verb that has to succeed; return what it printed."""
        done = self.run(veth, verb, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def record(self, veth: Veth, pin_root: str) -> Any:
        """Return the record of what is on the hook, as this version sees it."""
        (hook,) = self.do(veth, "status", "--pin-root", pin_root)["interfaces"]
        (attached,) = hook["attached"]
        return attached["record"]


def changed(source: str, *changes: tuple[str, str]) -> str:
    """Return a source with changes, each of which has one place."""
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def with_another_field(source: str) -> str:
    """Return the layout with one field more, as a later version would have it."""
    return changed(
        source,
        (
            """        ("unused_too", c_uint32),
    ]""",
            """        ("unused_too", c_uint32),
        ("priority", c_uint64),
    ]""",
        ),
        (
            """            "port_index": port.number or 0,
""",
            """            "port_index": port.number or 0,
            "priority": int(os.environ["XDPKIT_PRIORITY"]),
""",
        ),
        ("import json\n", "import json\nimport os\n"),
    )


def without_counters(source: str) -> str:
    """Return the layout as it was before programs were counted, and ports were known."""
    return changed(
        source,
        (
            """        ("logical_id", c_uint32),
        ("counting", c_uint32),
        ("tap", c_uint32),
        ("unused", c_uint32),
        ("port_table", Part),
        ("port_name", Part),
        ("port_table_id", c_uint32),
        ("unused_too", c_uint32),
""",
            "",
        ),
        (
            """            "logical_id": record.logical_id,
            "counting": record.counting,
            "tap": record.tap,
            "unused": 0,
            "port_table_id": port.table_id,
            "unused_too": 0,
""",
            "",
        ),
        (
            """            "port_table": sized.text(port.table, "the name of the port table"),
            "port_name": sized.text(port.name, "the name of the port"),
""",
            "",
        ),
        (
            """            port=_port(found),
""",
            "",
        ),
        (
            """
        or bool(fields.counting & ~KNOWN_COUNTING)
        or bool(fields.unused or fields.unused_too)
""",
            "",
        ),
        (
            """            logical_id=fields.logical_id,
            counting=Counting(fields.counting & KNOWN_COUNTING),
            tap=fields.tap,
""",
            "",
        ),
    )


def install(
    tmp_path_factory: pytest.TempPathFactory, number: str, change: Callable[[str], str]
) -> Version:
    """Return a version of another number, from a wheel of its own: its records are others."""
    tree = copy_sources(tmp_path_factory.mktemp("sources"))
    package = tree / "src" / "xdpkit"
    wire = package / "hook" / "wire.py"
    wire.write_text(change(wire.read_text()))
    init = package / "__init__.py"
    init.write_text(changed(init.read_text(), (f'"{__version__}"', f'"{number}"')))
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(build(tree)) as wheel:
        wheel.extractall(folder)
    return Version(folder, number)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A later version: its records have one field more."""
    return install(tmp_path_factory, LATER, with_another_field)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """An earlier version: its records have nothing about counting."""
    return install(tmp_path_factory, EARLIER, without_counters)


@pytest.fixture
def now() -> Version:
    return Version(ROOT / "src", __version__)


@pytest.fixture
def object_path() -> str:
    path = program().object.path
    assert path is not None
    return path


@pytest.mark.parametrize("later_first", [True, False])
def test_each_version_shows_replaces_and_detaches_what_the_other_attached(
    veth: Veth, pin_root: str, now: Version, later: Version, object_path: str, later_first: bool
) -> None:
    first, second = (later, now) if later_first else (now, later)
    root = ("--pin-root", pin_root)
    first.do(veth, "attach", object_path, "--cookie", "7", *root)

    seen = second.record(veth, pin_root)
    assert (seen["program"], seen["cookie"], seen["unknown"]) == ("minimal", 7, False)
    assert seen["origin"]["xdpkit"] == first.number

    second.do(veth, "replace", object_path, "--revert-after", "1h", *root)
    seen = first.record(veth, pin_root)
    assert seen["origin"]["xdpkit"] == second.number
    assert seen["revert_at"]

    first.do(veth, "confirm", *root)
    seen = second.record(veth, pin_root)
    assert (seen["revert_at"], seen["unknown"]) == (None, False)
    assert seen["origin"]["xdpkit"] == second.number

    first.do(veth, "detach", *root)
    (hook,) = second.do(veth, "status", *root)["interfaces"]
    assert hook["attached"] == []


def test_what_a_later_version_wrote_down_is_shown_and_not_changed(
    veth: Veth, pin_root: str, now: Version, later: Version, object_path: str
) -> None:
    root = ("--pin-root", pin_root)
    urgent = Version(later.folder, later.number, priority=7)
    urgent.do(veth, "attach", object_path, "--revert-after", "1h", *root)
    before = now.record(veth, pin_root)
    assert (before["program"], before["unknown"]) == ("minimal", True)

    replaced = now.run(veth, "replace", object_path, *root)
    assert replaced.returncode == 3
    refusal = json.loads(replaced.stdout)["error"]
    assert refusal["cause"] == (
        f"xdpkit {LATER} attached the present program, and wrote down more about it than this"
        " version understands; it would be lost"
    )
    assert refusal["remedy"] == (
        f"use xdpkit {LATER} or later; or detach the program and attach anew"
    )
    confirmed = now.run(veth, "confirm", *root)
    assert confirmed.returncode == 3
    assert json.loads(confirmed.stdout)["error"]["remedy"] == f"use xdpkit {LATER}"

    assert now.record(veth, pin_root) == before
    urgent.do(veth, "confirm", *root)
    now.do(veth, "detach", *root)


def test_what_an_earlier_version_attached_is_shown_counted_and_edited(
    veth: Veth, pin_root: str, now: Version, earlier: Version, object_path: str
) -> None:
    root = ("--pin-root", pin_root)
    earlier.do(veth, "attach", object_path, "--cookie", "7", "--revert-after", "1h", *root)
    seen = now.record(veth, pin_root)
    assert (seen["cookie"], seen["unknown"], seen["logical_id"]) == (7, False, None)
    assert seen["counting"] == "off"

    now.do(veth, "confirm", *root)
    assert earlier.record(veth, pin_root)["unknown"] is False

    counters = Counters(Place(veth.name, veth.netns, pin_root))
    (counted,) = counters.enable().programs
    with Program.from_id(counted.program.id) as running:
        running.run(bytes(64), repeat=3)
    (counted,) = counters.read().programs
    assert counted.total.packets == (0, 0, 3, 0, 0, 0)

    seen = now.record(veth, pin_root)
    assert (seen["cookie"], seen["logical_id"]) == (7, counted.logical_id)
    assert seen["counting"] == "packets"
    assert seen["origin"]["xdpkit"] == EARLIER
    now.do(veth, "detach", *root)


def test_an_earlier_version_shows_what_is_counted_and_does_not_change_it(
    veth: Veth, pin_root: str, now: Version, earlier: Version, object_path: str
) -> None:
    root = ("--pin-root", pin_root)
    now.do(veth, "attach", object_path, *root)
    counters = Counters(Place(veth.name, veth.netns, pin_root))
    counters.enable()
    seen = earlier.record(veth, pin_root)
    assert (seen["program"], seen["unknown"]) == ("minimal", True)
    replaced = earlier.run(veth, "replace", object_path, *root)
    assert replaced.returncode == 3
    assert json.loads(replaced.stdout)["error"]["remedy"] == (
        f"use xdpkit {__version__} or later; or detach the program and attach anew"
    )
    earlier.do(veth, "detach", *root)
    assert counters.read().is_enabled
    assert not counters.disable().is_enabled
