# SPDX-License-Identifier: Apache-2.0
"""A reader's folder is locked as long as the reader lives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xdpkit.errors import HookBusy
from xdpkit.hook import readers
from xdpkit.hook.pins import Pins
from xdpkit.interfaces import Interface, XdpIds

INTERFACE = Interface(4, "eth0", None, 1, "veth", None, 1500, 1, 1, XdpIds())
HOOK = INTERFACE.netns_cookie, INTERFACE.index
WHAT = "report frames of eth0"


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    (tmp_path / "xdpkit").mkdir()
    return Pins(os.fspath(tmp_path))


def test_a_reader_is_live_until_its_claim_is_closed(pins: Pins) -> None:
    with readers.claim(pins, INTERFACE, WHAT) as claim:
        assert (readers.live(pins), readers.left(pins)) == ({HOOK}, {})
        with pytest.raises(HookBusy, match="another reader has the frames"):
            readers.claim(pins, INTERFACE, WHAT)
    assert claim.closed
    assert (readers.live(pins), list(readers.left(pins))) == (set(), [HOOK])
    claim.close()


def test_a_descriptor_that_another_process_has_inherited_does_not_keep_a_claim(
    pins: Pins,
) -> None:
    with readers.claim(pins, INTERFACE, WHAT) as claim:
        inherited = os.dup(claim._folder.fileno())
    assert readers.live(pins) == set()
    os.close(inherited)


def test_a_process_that_is_forked_off_has_no_claim_and_leaves_the_readers(pins: Pins) -> None:
    with readers.claim(pins, INTERFACE, WHAT) as claim:
        child = os.fork()
        if not child:
            os._exit(0 if claim.closed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert readers.live(pins) == {HOOK}


def test_the_folder_above_goes_with_the_last_reader_if_there_is_nothing_else(pins: Pins) -> None:
    readers.claim(pins, INTERFACE, WHAT).close()
    other = Path(pins.folder) / "1-1"
    other.mkdir()
    readers.give_up(pins, HOOK)
    assert os.listdir(pins.folder) == ["1-1"]
    other.rmdir()
    readers.claim(pins, INTERFACE, WHAT).close()
    readers.give_up(pins, HOOK)
    assert not os.path.exists(pins.folder)
