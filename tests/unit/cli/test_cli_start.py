# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys

_STATUS = """
import json, sys
from xdpkit.cli import main
try:
    main(["status"])
except SystemExit as done:
    print(json.dumps([done.code, sorted(sys.modules)]))
"""


def test_status_imports_nothing_that_it_does_not_use() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STATUS], capture_output=True, text=True, check=True
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    assert "xdpkit.hook" in modules
    for unused in (
        "asyncio",
        "elftools",
        "importlib.metadata",
        "pyroute2",
        "rich",
        "scapy",
        "subprocess",
        "xdpkit.analysis",
        "xdpkit.btf",
        "xdpkit.cli.demo",
        "xdpkit.cli.inspect",
        "xdpkit.cli.pcap",
        "xdpkit.compiler",
        "xdpkit.isa",
        "xdpkit.obj",
        "xdpkit.rewrite",
    ):
        assert unused not in modules
