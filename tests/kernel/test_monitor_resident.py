# SPDX-License-Identifier: Apache-2.0
"""The resident programs: they come whole and go whole, and what is counted stays counted."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kernel.attaching import BPFFS
from tests.kernel.failing import (
    Scene,
    redirecting_anywhere,
    redirecting_to,
    returning,
    scene,
)
from tests.kernel.killing import Killing, killing, reach, wait_until
from tests.kernel.net import namespace
from tests.kernel.process import POWERLESS, shipped, xdpkit_command
from xdpkit import monitor
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.hook import clean
from xdpkit.kernel import Program, XdpContext
from xdpkit.monitor.model import ErrorCount, Group, Installed, Reason, RedirectErrorCount
from xdpkit.monitor.resident import MAX_RATE
from xdpkit.syscalls.netns import entered, has_cookies, path_of

__all__ = ["killing"]

# The resident programs count for the whole machine, and have so many slots for it.
pytestmark = [pytest.mark.needs("live-frames", "bpf-link-xdp"), pytest.mark.alone]

FRAME = bytes(64)
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


@pytest.fixture(autouse=True)
def _is_built() -> None:
    shipped("monitor.o")


@pytest.fixture
def staged(netns: str) -> Iterator[Scene]:
    """A veth with a program that returns XDP_ABORTED."""
    with scene(netns, "native") as made:
        made.attach(returning(0, name="aborts"))
        yield made


def aborted(staged: Scene, pin_root: str) -> int:
    """Return how many packets of a scene are counted as aborted."""
    return sum(each.packets for each in errors_on(staged, pin_root) if each.program == "aborts")


def errors_on(staged: Scene, pin_root: str) -> list[ErrorCount]:
    found = monitor.read(netns=staged.netns, pin_root=pin_root)
    assert found is not None
    return [each for each in found.errors if staged.has(each.where.interface)]


def send(staged: Scene, count: int) -> None:
    """Send frames; all of them have met the program then."""
    before = staged.met()
    assert staged.send(count, 64) == count
    wait_until(lambda: staged.met() == before + count)


def inode_of(netns: str) -> int:
    return os.stat(path_of(netns)).st_ino


def names_in(pin_root: str) -> set[str]:
    """Return what is pinned, or the folders that wait for pins."""
    folder = Path(pin_root)
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Coming and going


def test_nothing_is_installed_until_it_is(pin_root: str) -> None:
    assert monitor.installed(pin_root=pin_root) is None
    assert monitor.read(pin_root=pin_root) is None
    assert not monitor.remove(pin_root=pin_root)
    assert names_in(pin_root) == set()


def test_what_is_installed_counts_and_goes_without_a_trace(
    staged: Scene, pin_root: str, killing: Killing
) -> None:
    made = monitor.install(transmit=True, rate=7, pin_root=pin_root)

    assert made == monitor.installed(pin_root=pin_root)
    assert made.groups == {Group.ERRORS, Group.TRANSMIT}
    assert made.rate == 7
    assert set(made.program_ids) == killing.programs() & set(made.program_ids)
    assert len(made.program_ids) == len(made.tracepoints) == len(set(made.tracepoints))
    send(staged, 100)
    assert aborted(staged, pin_root) == 100

    assert monitor.remove(pin_root=pin_root)
    assert monitor.installed(pin_root=pin_root) is None
    assert not monitor.remove(pin_root=pin_root)
    assert names_in(pin_root) <= {"xdpkit"}
    killing.assert_nothing_is_left()


def test_installing_it_again_goes_on_counting(staged: Scene, pin_root: str) -> None:
    first = monitor.install(pin_root=pin_root)
    pins = names_in(pin_root)
    send(staged, 100)
    second = monitor.install(pin_root=pin_root)
    send(staged, 10)

    assert second == first
    assert names_in(pin_root) == pins
    assert aborted(staged, pin_root) == 110
    monitor.remove(pin_root=pin_root)


def test_what_it_counts_is_changed_without_losing_a_count(staged: Scene, pin_root: str) -> None:
    errors = monitor.install(pin_root=pin_root)
    send(staged, 100)
    both = monitor.install(transmit=True, rate=5, pin_root=pin_root)
    send(staged, 10)
    found = monitor.read(netns=staged.netns, pin_root=pin_root)
    assert found is not None
    sent = [each.sent for each in found.transmits if each.where.interface == staged.near.peer]
    again = monitor.install(pin_root=pin_root)

    assert errors.groups == again.groups == {Group.ERRORS}
    assert both.groups == {Group.ERRORS, Group.TRANSMIT}
    assert (errors.rate, both.rate, again.rate) == (100, 5, 100)
    assert set(errors.program_ids) == set(again.program_ids) < set(both.program_ids)
    assert errors.since == both.since == again.since
    assert aborted(staged, pin_root) == 110
    assert sent == [10]
    monitor.remove(pin_root=pin_root)


def test_it_begins_anew_after_a_remove(staged: Scene, pin_root: str) -> None:
    monitor.install(pin_root=pin_root)
    send(staged, 100)
    monitor.remove(pin_root=pin_root)
    monitor.install(pin_root=pin_root)

    assert errors_on(staged, pin_root) == []
    monitor.remove(pin_root=pin_root)


def test_it_counts_on_when_the_process_has_gone_that_installed_it(
    staged: Scene, pin_root: str
) -> None:
    install = f"from xdpkit import monitor; monitor.install(pin_root={pin_root!r})"
    subprocess.run([sys.executable, "-c", install], check=True)
    send(staged, 100)

    assert aborted(staged, pin_root) == 100
    monitor.remove(pin_root=pin_root)


def test_two_that_install_it_at_once_install_it_once(
    staged: Scene, pin_root: str, killing: Killing
) -> None:
    with killing.reporting("at once") as said:
        children = [
            killing.fork(lambda: killing.say(repr(monitor.install(pin_root=pin_root).program_ids)))
            for _ in range(4)
        ]
        statuses = [os.waitpid(child, 0)[1] for child in children]

    assert statuses == [0] * 4, "\n".join(said)
    assert len(set(said)) == 1
    send(staged, 100)
    assert aborted(staged, pin_root) == 100
    assert monitor.remove(pin_root=pin_root)


def test_installing_and_removing_it_at_once_leaves_one_or_the_other(
    pin_root: str, killing: Killing
) -> None:
    def install() -> None:
        for _ in range(3):
            monitor.install(pin_root=pin_root)

    def remove() -> None:
        for _ in range(10):
            monitor.remove(pin_root=pin_root)

    def look() -> None:
        for _ in range(20):
            monitor.read(pin_root=pin_root)
            monitor.installed(pin_root=pin_root)

    with killing.reporting("at once") as said:
        children = [killing.fork(task) for task in (install, remove, look, install)]
        statuses = [os.waitpid(child, 0)[1] for child in children]

    assert statuses == [0] * 4, "\n".join(said)
    found = monitor.installed(pin_root=pin_root)
    assert monitor.remove(pin_root=pin_root) == (found is not None)
    assert names_in(pin_root) <= {"xdpkit"}


def test_cleaning_up_hooks_leaves_it_counting(
    staged: Scene, pin_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, staged.netns)
    before = monitor.install(pin_root=pin_root)
    clean(pin_root=pin_root)
    clean(everything=True, pin_root=pin_root)
    send(staged, 100)

    assert monitor.installed(pin_root=pin_root) == before
    assert aborted(staged, pin_root) == 100
    monitor.remove(pin_root=pin_root)


# Death


every_death = pytest.mark.parametrize(
    "every_step",
    [
        pytest.param(False, id="lasting"),
        pytest.param(True, id="every-step", marks=pytest.mark.soak),
    ],
)


@every_death
def test_a_death_while_it_is_installed_leaves_what_the_next_command_mends(
    pin_root: str, killing: Killing, every_step: bool
) -> None:
    monitor.install(transmit=True, pin_root=pin_root)
    monitor.remove(pin_root=pin_root)
    kept = names_in(pin_root)

    for step in itertools.count(1):
        died_before = killing.die(
            lambda: monitor.install(transmit=True, pin_root=pin_root), step, every=every_step
        )
        found = monitor.installed(pin_root=pin_root)
        if found is not None:
            _is_whole(found)
        if step % 2:
            _is_whole(monitor.install(transmit=True, pin_root=pin_root))
        # What was not complete was not installed, but nothing of it may be left either.
        assert monitor.remove(pin_root=pin_root) == (found is not None or bool(step % 2))
        assert names_in(pin_root) == kept, f"after a death before {died_before}"
        if died_before is None:
            break
    assert killing.deaths > 10
    killing.assert_nothing_is_left()


@every_death
def test_a_death_while_it_is_changed_or_removed_loses_no_count_before_the_remove(
    staged: Scene, pin_root: str, killing: Killing, every_step: bool
) -> None:
    def to_both() -> None:
        monitor.install(transmit=True, pin_root=pin_root)

    def to_errors() -> None:
        monitor.install(pin_root=pin_root)

    for change in (to_both, to_errors):
        monitor.remove(pin_root=pin_root)
        sent = 0
        for step in itertools.count(1):
            (to_errors if change is to_both else to_both)()
            died_before = killing.die(change, step, every=every_step)
            send(staged, 10)
            sent += 10
            assert aborted(staged, pin_root) == sent, f"after a death before {died_before}"
            if died_before is None:
                break
        found = monitor.installed(pin_root=pin_root)
        assert found is not None
        assert (Group.TRANSMIT in found.groups) == (change is to_both)

    for step in itertools.count(1):
        monitor.install(pin_root=pin_root)
        died_before = killing.die(lambda: monitor.remove(pin_root=pin_root), step, every=every_step)
        found = monitor.installed(pin_root=pin_root)
        if found is not None:
            _is_whole(found)
        monitor.remove(pin_root=pin_root)
        assert names_in(pin_root) <= {"xdpkit"}, f"after a death before {died_before}"
        if died_before is None:
            break
    killing.assert_nothing_is_left()


def _is_whole(found: Installed) -> None:
    assert len(found.program_ids) == len(found.tracepoints)
    present = {"xdp_exception", "xdp_redirect_err"} - set(found.absent)
    assert present <= set(found.tracepoints)


# What counts cannot do to each other


def test_targets_that_a_packet_chooses_do_not_push_out_what_is_counted(
    staged: Scene, pin_root: str
) -> None:
    installed = monitor.install(pin_root=pin_root)
    send(staged, 100)
    with scene(staged.netns, "native") as attacked:
        attacked.attach(redirecting_anywhere(name="redirects"))
        send(attacked, 20_000)
        found = monitor.read(netns=staged.netns, pin_root=pin_root)
        assert found is not None
        chosen = [each for each in found.redirect_errors if attacked.has(each.where.interface)]

        # All are counted, most of them as one.
        assert sum(each.packets for each in chosen) + found.other == 20_000
        assert _overflow(chosen) > 19_000
        assert len(chosen) <= installed.slots // 2 + 1
        # What was counted before is counted on, and what comes now finds a place.
        send(staged, 100)
        assert aborted(staged, pin_root) == 200
        for number in range(8):
            with scene(staged.netns, "native") as another:
                another.attach(returning(number % 2 * 42, name="late"))
                send(another, 10)
                reason = Reason.INVALID if number % 2 else Reason.ABORTED
                assert [(each.reason, each.packets) for each in errors_on(another, pin_root)] == [
                    (reason, 10)
                ]
    monitor.remove(pin_root=pin_root)


def _overflow(found: list[RedirectErrorCount]) -> int:
    return sum(each.packets for each in found if each.target.name == "other")


def test_more_kinds_of_errors_than_slots_are_counted_as_other(netns: str, pin_root: str) -> None:
    installed = monitor.install(pin_root=pin_root)
    programs = installed.slots + 100
    with entered(netns):
        for _ in range(programs):
            # Each program makes a kind of its own, on lo: no packet decides about that.
            with returning(4, name="kind") as program:
                program.run(FRAME, live=True, cpu=0)
    found = monitor.read(netns=netns, pin_root=pin_root)
    assert found is not None
    kinds = [
        each
        for each in found.redirect_errors
        if (each.where.netns, each.where.interface) == ("", "lo")
    ]

    assert found.other > 0
    assert sum(each.packets for each in kinds) + found.other == programs
    monitor.remove(pin_root=pin_root)


def test_what_a_program_returns_by_chance_is_one_kind_of_error(
    staged: Scene, pin_root: str
) -> None:
    monitor.install(pin_root=pin_root)
    with scene(staged.netns, "native") as random:
        random.attach(redirecting_anywhere(name="returns", returned=True))
        send(random, 1000)
        (found,) = errors_on(random, pin_root)
    monitor.remove(pin_root=pin_root)

    assert (found.action, found.reason, found.packets) == ("invalid", Reason.INVALID, 1000)
    assert found.returned > 4


def test_all_cpus_count_at_once(netns: str, pin_root: str) -> None:
    monitor.install(pin_root=pin_root)
    with returning(4, name="redirects") as program, entered(netns):
        threads = [
            threading.Thread(target=_run_on, args=(program, cpu)) for cpu in os.sched_getaffinity(0)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = monitor.read(pin_root=pin_root)
        assert found is not None
        counted = [each for each in found.redirect_errors if each.program_id == program.id]
    monitor.remove(pin_root=pin_root)

    assert [each.packets for each in counted] == [100_000 * len(threads)]


def _run_on(program: Program, cpu: int) -> None:
    program.run(FRAME, live=True, repeat=100_000, cpu=cpu)


# Namespaces


def test_what_happens_in_another_namespace_is_named(staged: Scene, pin_root: str) -> None:
    monitor.install(pin_root=pin_root)
    send(staged, 100)
    places = {}
    with namespace() as elsewhere:
        for asked in (staged.netns, elsewhere, None):
            found = monitor.read(netns=asked, pin_root=pin_root)
            assert found is not None
            (places[asked],) = (
                each.where for each in found.errors if staged.has(each.where.interface)
            )
    monitor.remove(pin_root=pin_root)

    assert places[staged.netns].title == staged.near.name
    assert places[elsewhere].title == places[None].title == f"{staged.netns}/{staged.near.name}"


def test_what_was_lost_on_an_interface_that_is_gone_keeps_its_names(pin_root: str) -> None:
    monitor.install(pin_root=pin_root)
    with namespace() as name:
        with scene(name, "native") as gone:
            gone.attach(returning(0, name="aborts"))
            send(gone, 100)
        (found,) = errors_on(gone, pin_root)
        assert (found.where.title, found.program, found.packets) == (gone.near.name, "aborts", 100)
    monitor.remove(pin_root=pin_root)


def test_what_was_lost_in_a_namespace_that_is_gone_is_not_that_of_a_new_one(
    pin_root: str,
) -> None:
    monitor.install(pin_root=pin_root)
    with namespace() as old:
        inode = inode_of(old)
        with scene(old, "native") as gone:
            gone.attach(returning(0, name="aborts"))
            send(gone, 100)
    with ExitStack() as made:
        # The kernel gives the number of a namespace's file to another one soon.
        for _ in range(300):
            new = made.enter_context(namespace())
            if inode_of(new) == inode:
                break
        with scene(new, "native"):
            found = monitor.read(netns=new, pin_root=pin_root)
    monitor.remove(pin_root=pin_root)

    assert found is not None
    (lost,) = (each for each in found.errors if each.where.interface == gone.near.name)
    assert lost.where.netns.startswith("gone:[" if has_cookies() else "net:[")
    assert lost.packets == 100


def test_what_is_transmitted_well_is_never_counted_as_an_error(netns: str, pin_root: str) -> None:
    """However many pairs of interfaces there are: here, more than there are slots."""
    monitor.install(transmit=True, pin_root=pin_root)
    with scene(netns, "native") as staged:
        ports = [staged.index(staged.target().name) for _ in range(17)]
        senders = {port: staged.own(redirecting_to(port, name="sends")) for port in ports}
        with entered(netns):
            for source, target in itertools.permutations(ports, 2):
                context = XdpContext(ingress_ifindex=source)
                senders[target].run(FRAME, live=True, cpu=0, context=context)
        found = monitor.read(netns=netns, pin_root=pin_root)
    monitor.remove(pin_root=pin_root)

    assert found is not None
    pairs = {(each.source, each.where) for each in found.transmits if each.source is not None}
    assert len(pairs) > 200
    assert sum(each.dropped for each in found.transmits) == 0
    assert found.other == 0


# Refusals


@pytest.mark.parametrize("pin", ["settings", "errors"])
def test_counters_without_all_of_their_pins_are_refused_and_can_be_removed(
    pin_root: str, pin: str
) -> None:
    monitor.install(pin_root=pin_root)
    os.unlink(f"{pin_root}/xdpkit/monitor/{pin}")
    remedy = "xdpkit monitor remove, then install them again"
    for look in (monitor.installed, monitor.read, monitor.install):
        with pytest.raises(RequirementUnmet, match="lacks some of their pins") as refused:
            look(pin_root=pin_root)
        assert refused.value.remedy == remedy
    assert monitor.take(pin_root=pin_root, interfaces=[]).unread is not None
    assert monitor.remove(pin_root=pin_root)
    assert monitor.installed(pin_root=pin_root) is None


def test_a_folder_among_the_pins_is_left_and_said(pin_root: str) -> None:
    monitor.install(pin_root=pin_root)
    os.mkdir(f"{pin_root}/xdpkit/monitor/mine")
    with pytest.raises(RequirementUnmet, match="mine is a folder, which is not of xdpkit's making"):
        monitor.remove(pin_root=pin_root)
    assert monitor.installed(pin_root=pin_root) is None
    os.rmdir(f"{pin_root}/xdpkit/monitor-unfinished/mine")
    assert not monitor.remove(pin_root=pin_root)
    assert names_in(f"{pin_root}/xdpkit") == set()


@pytest.mark.parametrize("rate", [-1, MAX_RATE + 1, 1.5, "many"])
def test_a_rate_that_makes_no_sense_is_refused(pin_root: str, rate: int) -> None:
    with pytest.raises(UsageError, match=rf"a whole number from 0 to {MAX_RATE:,}, not {rate!r}"):
        monitor.install(rate=rate, pin_root=pin_root)
    assert names_in(pin_root) == set()


def test_a_folder_that_is_no_bpffs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequirementUnmet) as refused:
        monitor.install(pin_root=str(tmp_path))
    assert "install the resident counters" in str(refused.value)
    assert f"mount -t bpf bpf {tmp_path}" in str(refused.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_a_bpffs_that_is_hidden_is_refused_with_the_remedy(netns: str, verb: str) -> None:
    if shutil.which("ip") is None:
        pytest.skip("no ip: apt-get install iproute2")
    if monitor.installed() is not None:
        pytest.skip("this machine counts errors itself: xdpkit monitor remove")
    monitor.install()
    done = xdpkit_command("monitor", verb, by=("ip", "netns", "exec", netns))
    assert monitor.remove()

    assert done.status == 3, done.output
    assert BPFFS in done.messages
    assert "Remedy: " in done.messages


def test_installing_it_without_privilege_names_what_is_missing() -> None:
    done = xdpkit_command("monitor", "install", by=POWERLESS)

    assert done.status == 7, done.output
    assert "CAP_SYS_ADMIN" in done.messages


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_a_user_who_is_not_root_is_told_so(verb: str) -> None:
    monitor.install()
    done = xdpkit_command("monitor", verb, by=NOBODY)
    assert monitor.remove()

    assert done.status == 7, done.output
    assert "xdpkit: " in done.messages
