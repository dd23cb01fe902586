# SPDX-License-Identifier: Apache-2.0
"""What ``xdpkit monitor show`` refuses."""

from __future__ import annotations

import pytest

from tests.unit.cli.commands import run


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--interval", "0.01"], "it has to be from 0.1 to 86,400"),
        (["--interval", "nan"], "it has to be from 0.1 to 86,400"),
        (["--interval", "soon"], "read 'soon' as a number of seconds: it is none"),
        (["--once", "--count", "2"], "--once and --count exclude each other"),
        (["no-such-iface", "--once"], "no-such-iface"),
    ],
)
def test_bad_input_is_refused(options: list[str], text: str) -> None:
    done = run("monitor", "show", *options)
    assert (done.status, done.output) == (2, "")
    assert text in done.messages
