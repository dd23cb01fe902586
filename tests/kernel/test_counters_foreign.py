# SPDX-License-Identifier: Apache-2.0
"""Programs of others are counted from outside where the kernel allows it, and else it is said why.

The tests of what is counted take a kernel that lets one program watch another (fexit); those of
what is said take none.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.attaching import attach_by_netlink, link_of, raw_program
from tests.kernel.attaching import program as corpus_program
from tests.kernel.killing import Killing, killing, only_here, wait_until
from tests.kernel.multiqueue import line_into
from tests.kernel.net import Veth, make_veth, namespace, rtnetlink
from tests.kernel.test_counters import EACH, Scene, frame, only, packets, scene, spec
from tests.kernel.test_dispatcher import fake as fake_dispatcher
from tests.kernel.xdp_loader import xdp_loader
from xdpkit import Hook
from xdpkit.btf import Btf
from xdpkit.btf.builder import BtfBuilder
from xdpkit.btf.types import Func, FuncLinkage, FuncProto, Param
from xdpkit.errors import KernelRefused
from xdpkit.hook import Mode, Via, clean
from xdpkit.hook.watching import WATCH, why_not
from xdpkit.isa import asm
from xdpkit.isa.opcodes import Register
from xdpkit.kernel import Program, load
from xdpkit.probes.ask import BYTEORDER, RETURN_0, XDP_DROP_PROGRAM, machine_code
from xdpkit.probes.btf import INT_BTF, XDP_FUNCTION_BTF, XDP_FUNCTION_ID
from xdpkit.syscalls import bpf
from xdpkit.syscalls.bpf import NewProgram, ObjectKind
from xdpkit.syscalls.fd import Fd
from xdpkit.uapi.bpf import AttachType, Cmd, ProgType, XdpAction

__all__ = ["killing", "only_here", "scene"]

pytestmark = pytest.mark.needs("prog-bind-map", "bpf-link-xdp")

ways = pytest.mark.parametrize("via", list(Via), ids=["link", "netlink"])


# XDP_FLAGS_SKB_MODE, include/uapi/linux/if_link.h.
FLAGS_SKB = ["IFLA_XDP_FLAGS", 1 << 1]


@contextlib.contextmanager
def described(**fields: Any) -> Iterator[Fd]:
    """Load a program that drops all packets, with types; fields are as of NewProgram."""
    with bpf.btf_load(XDP_FUNCTION_BTF) as types:
        new = replace(
            XDP_DROP_PROGRAM,
            name="described",
            btf_fd=types.fileno(),
            func_info=struct.pack("=II", 0, XDP_FUNCTION_ID),
            **fields,
        )
        with bpf.prog_load(new, what="load a program with types") as loaded:
            yield loaded


def load_watcher(target: Fd) -> Fd:
    """Load a program that does nothing when another one has returned."""
    new = NewProgram(
        type=ProgType.TRACING,
        code=machine_code(*RETURN_0),
        license="GPL",
        attach_type=AttachType.TRACE_FEXIT,
        attach_btf_id=XDP_FUNCTION_ID,
        attach_prog_fd=target.fileno(),
    )
    return bpf.prog_load(new, what="load a program that watches")


@pytest.fixture
def watchable() -> None:
    """Skip the test where no program can watch another one."""
    with described() as target:
        try:
            load_watcher(target).close()
        except KernelRefused as error:
            pytest.skip(f"needs fexit of programs (Linux 5.5): {error.cause or error}")


@contextlib.contextmanager
def foreign(veth: Veth, name: str = "by_packet", *, via: Via = Via.NETLINK) -> Iterator[Program]:
    """Attach a program as another tool would, without xdpkit's hook."""
    with load(spec(name)) as loaded, on(veth, loaded, via):
        yield loaded


@contextlib.contextmanager
def on(veth: Veth, loaded: Program, via: Via = Via.NETLINK) -> Iterator[None]:
    if via is Via.LINK:
        with Fd.duplicate(loaded) as descriptor, link_of(descriptor, veth):
            yield
        return
    attach_by_netlink(veth, loaded)
    try:
        yield
    finally:
        attach_nothing(veth)


def attach_nothing(veth: Veth) -> None:
    with rtnetlink(veth.netns) as connection:
        connection.link("set", ifname=veth.name, xdp_fd=-1)


def watchers() -> set[int]:
    """Return the programs that watch others now."""
    found = set()
    for number in bpf.ids(ObjectKind.PROGRAM):
        descriptor = bpf.fd_by_id(ObjectKind.PROGRAM, number)
        if descriptor is None:
            continue
        with descriptor:
            info, _ = bpf.prog_info(descriptor.fileno())
        if info.name == WATCH.encode():
            found.add(number)
    return found


def exists(number: int) -> bool:
    return number in set(bpf.ids(ObjectKind.PROGRAM))


def gone(number: int) -> None:
    wait_until(lambda: not exists(number), lambda: f"program {number} is kept")


def pins(pin_root: str) -> list[str]:
    return sorted(path.name for path in Path(pin_root).glob("xdpkit/*/*"))


# What is counted


@ways
@pytest.mark.usefixtures("watchable")
def test_each_action_of_a_program_of_others_is_counted(
    scene: Scene, veth: Veth, pin_root: str, via: Via
) -> None:
    with foreign(veth, via=via) as loaded:
        report = scene.counters.enable()
        assert (report.is_enabled, report.not_counted) == (True, ())
        counted = only(report)
        assert (counted.program.id, counted.logical_id) == (loaded.id, loaded.id)
        assert (counted.name, counted.queues, counted.called_by) == ("by_packet", None, ())
        assert veth.interface.xdp.native == loaded.id
        assert pins(pin_root) == ["settings", f"watch-{loaded.id}"]
        scene.send_each()
        scene.until(by_packet=EACH)
        assert only(scene.counters.read()).total.bytes is None


@pytest.mark.usefixtures("watchable")
def test_bytes_of_a_program_of_others_are_counted_by_action(scene: Scene, veth: Veth) -> None:
    with foreign(veth):
        assert scene.counters.enable(count_bytes=True).count_bytes
        scene.send(frame(1, length=60), frame(1, length=1000), frame(2, length=99))
        scene.until(by_packet=(0, 2, 1, 0, 0, 0))
        assert only(scene.counters.read()).total.bytes == (0, 1060, 99, 0, 0, 0)


@pytest.mark.usefixtures("watchable")
def test_packets_of_a_program_of_others_are_counted_by_queue(scene: Scene, veth: Veth) -> None:
    with foreign(veth):
        scene.counters.enable()
        with line_into(veth) as line:
            for queue in range(4):
                line.send(queue, queue + 1)
            wait_until(lambda: sum(scene.counts()["by_packet"]) == 10)
        per_queue = only(scene.counters.read()).per_queue
        assert {queue: counts.packets[0] for queue, counts in per_queue.items()} == {
            0: 1,
            1: 2,
            2: 3,
            3: 4,
        }


@pytest.mark.usefixtures("watchable")
def test_a_program_of_others_in_generic_mode_is_counted(scene: Scene, veth: Veth) -> None:
    with load(spec("by_packet")) as loaded, rtnetlink(veth.netns) as connection:
        connection.link(
            "set", ifname=veth.name, xdp={"attrs": [["IFLA_XDP_FD", loaded.fileno()], FLAGS_SKB]}
        )
        scene.counters.enable(count_bytes=True)
        scene.send(frame(1, length=60), frame(2, length=100))
        scene.until(by_packet=(0, 1, 1, 0, 0, 0))
        assert only(scene.counters.read()).total.bytes == (0, 60, 100, 0, 0, 0)
        scene.counters.disable()


@pytest.mark.usefixtures("watchable")
def test_what_a_program_of_others_tail_calls_is_counted_as_its_own(
    scene: Scene, veth: Veth
) -> None:
    with foreign(veth, "from_main"):
        scene.counters.enable()
        scene.send(frame(1, 1), frame(2, 1), frame(2, 2), frame(3, 0))
        scene.until(from_main=(1, 1, 2, 0, 0, 0))


@pytest.mark.usefixtures("watchable")
def test_only_the_packets_of_the_interface_are_counted(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    other = make_veth(veth.netns)
    other_hook = Hook(other.name, netns=other.netns, pin_root=pin_root)
    with foreign(veth) as loaded, on(other, loaded):
        scene.counters.enable()
        other_hook.counters.enable()
        scene.send(frame(1), frame(2))
        scene.until(by_packet=(0, 1, 1, 0, 0, 0))
        assert packets(other_hook.counters.read()) == {"by_packet": (0,) * 6}
        other_hook.counters.disable()
        scene.send(frame(1))
        scene.until(by_packet=(0, 2, 1, 0, 0, 0))


@pytest.mark.usefixtures("watchable")
def test_the_interface_is_told_from_one_with_its_index_in_another_namespace(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    with namespace() as there:
        index = veth.interface.index
        with rtnetlink(there) as connection:
            connection.link("add", ifname="same", kind="dummy", index=index)
        hook = Hook("same", netns=there, pin_root=pin_root)
        with load(spec("by_packet")) as loaded, rtnetlink(there) as connection:
            connection.link(
                "set", ifname="same", xdp={"attrs": [["IFLA_XDP_FD", loaded.fileno()], FLAGS_SKB]}
            )
            hook.counters.enable()
            with on(veth, loaded):
                scene.counters.enable()
                scene.send(frame(1), frame(2))
                scene.until(by_packet=(0, 1, 1, 0, 0, 0))
                assert packets(hook.counters.read()) == {"by_packet": (0,) * 6}


@pytest.mark.usefixtures("watchable")
def test_a_dispatcher_of_libxdp_is_counted_as_one_program(scene: Scene, veth: Veth) -> None:
    with fake_dispatcher(2) as loaded, on(veth, loaded):
        report = scene.counters.enable()
        assert report.not_counted == ()
        assert only(report).logical_id == loaded.id
        scene.send(frame(1), frame(2))
        wait_until(lambda: sum(scene.counts()["xdp_dispatcher"]) == 2)


@pytest.mark.needs("freplace")
@pytest.mark.usefixtures("watchable")
def test_xdp_loader_goes_on_beside_counting(scene: Scene, veth: Veth, pin_root: str) -> None:
    with xdp_loader(veth) as run:
        run("load", veth.name, corpus_program().object.path)
        first = veth.interface.xdp.native or 0
        assert scene.counters.enable().not_counted == ()
        scene.send(frame(1), frame(2))
        scene.until(xdp_dispatcher=(0, 0, 2, 0, 0, 0))
        # libxdp makes a new dispatcher.
        run("load", veth.name, corpus_program().object.path)
        second = veth.interface.xdp.native or 0
        assert first != second
        scene.counters.enable()
        gone(first)
        scene.send(frame(1))
        scene.until(xdp_dispatcher=(0, 0, 1, 0, 0, 0))
        run("unload", veth.name, "--all")
        assert veth.interface.xdp.native is None
        assert scene.counters.disable().programs == ()
        gone(second)


@pytest.mark.usefixtures("watchable")
def test_counting_a_program_of_others_twice_counts_once_and_goes_on(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    before = watchers()
    with foreign(veth):
        scene.counters.enable()
        scene.send(frame(1, length=60))
        scene.until(by_packet=(0, 1, 0, 0, 0, 0))
        scene.counters.enable(count_bytes=True)
        scene.send(frame(1, length=100))
        scene.until(by_packet=(0, 2, 0, 0, 0, 0))
        assert len(watchers() - before) == 1
        assert only(scene.counters.read()).total.bytes == (0, 160, 0, 0, 0, 0)


# How long


@pytest.mark.usefixtures("watchable")
def test_disabling_ends_the_counting_of_a_program_of_others(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    before = watchers()
    with foreign(veth):
        scene.counters.enable()
        (watch,) = watchers() - before
        assert scene.counters.disable().programs == ()
        gone(watch)
        assert pins(pin_root) == []
        assert scene.counters.read().programs == ()


@ways
@pytest.mark.usefixtures("watchable")
def test_a_program_of_others_that_has_left_goes_with_the_next_change(
    scene: Scene, veth: Veth, pin_root: str, via: Via
) -> None:
    with foreign(veth, via=via) as loaded:
        number = loaded.id
        scene.counters.enable()
    assert exists(number)
    with foreign(veth) as following:
        assert scene.counters.read().not_counted == (
            f"What by_packet (id {following.id}) returns is not counted yet: enable counting"
            " again.",
        )
        scene.counters.enable()
        gone(number)
        assert pins(pin_root) == ["settings", f"watch-{following.id}"]
        scene.send(frame(1))
        scene.until(by_packet=(0, 1, 0, 0, 0, 0))


@pytest.mark.usefixtures("watchable")
def test_a_program_of_others_that_xdpkit_replaces_goes(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    with load(spec("by_packet")) as loaded:
        attach_by_netlink(veth, loaded)
        number = loaded.id
        scene.counters.enable()
    scene.hook.replace(spec("leaf"), expected=number).close()
    gone(number)
    assert f"watch-{number}" not in pins(pin_root)
    scene.send(frame(1))
    scene.until(leaf=(0, 1, 0, 0, 0, 0))


@pytest.mark.usefixtures("watchable", "only_here")
def test_cleaning_up_lets_a_program_of_others_go_that_has_left(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    with foreign(veth) as loaded:
        number = loaded.id
        scene.counters.enable()
        assert clean(pin_root=pin_root) == ()
        assert pins(pin_root) == ["settings", f"watch-{number}"]
    for dry_run in (True, False):
        (cleaned,) = clean(pin_root=pin_root, dry_run=dry_run)
        assert (
            cleaned.what == f"what counts program {number}, which is not on the interface any more"
        )
        assert cleaned.path is not None
        assert Path(cleaned.path).name == f"watch-{number}"
    gone(number)
    assert pins(pin_root) == ["settings"]


@pytest.mark.usefixtures("watchable", "only_here")
def test_cleaning_up_everything_leaves_a_program_of_others_alone(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    before = watchers()
    with foreign(veth) as loaded:
        scene.counters.enable()
        (watch,) = watchers() - before
        clean(everything=True, pin_root=pin_root)
        gone(watch)
        assert os.listdir(pin_root) == []
        assert veth.interface.xdp.native == loaded.id


@pytest.mark.usefixtures("watchable")
def test_a_program_of_others_goes_with_its_interface_at_the_next_change_of_any(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    other = make_veth(veth.netns)
    with load(spec("by_packet")) as loaded:
        attach_by_netlink(other, loaded)
        number = loaded.id
    Hook(other.name, netns=other.netns, pin_root=pin_root).counters.enable()
    with rtnetlink(other.netns) as connection:
        connection.link("del", ifname=other.name)
    assert exists(number)
    scene.counters.enable()
    gone(number)


@pytest.mark.usefixtures("watchable")
def test_a_death_leaves_a_program_of_others_counted_once_or_not_at_all(
    veth: Veth, pin_root: str, only_here: None, killing: Killing
) -> None:
    hook = Hook(veth.name, netns=veth.netns, pin_root=pin_root)
    with foreign(veth) as loaded:
        # What is learnt once in a process is learnt before the first child is born.
        hook.counters.enable()
        hook.counters.disable()
        changes: list[tuple[Callable[[], object], Callable[[], object]]] = [
            (hook.counters.enable, hook.counters.disable),
            (hook.counters.disable, hook.counters.enable),
        ]
        for change, undo in changes:
            for step in itertools.count(1):
                died_before = killing.die(change, step)
                assert veth.interface.xdp.native == loaded.id
                # The next command goes on.
                change()
                counted = [each.logical_id for each in hook.counters.read().programs]
                is_on = change is changes[0][0]
                assert counted == ([loaded.id] if is_on else [])
                assert pins(pin_root) == (["settings", f"watch-{loaded.id}"] if is_on else [])
                if died_before is None:
                    break
                undo()
        hook.counters.disable()
    assert killing.deaths > 3


# What is not counted


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse programs that watch others, as a security policy does."""
    real = bpf.funnel

    def funnel(cmd: int, argument: Any) -> int:
        if cmd == Cmd.PROG_LOAD and argument.prog_type == ProgType.TRACING:
            return -errno.EPERM
        return real(cmd, argument)

    monkeypatch.setattr(bpf, "funnel", funnel)


BY_POLICY = (
    "nor can it be watched from outside: the process has the capabilities, so a security policy"
    " refuses (LSM, seccomp, lockdown or the container)."
)


@pytest.mark.usefixtures("refused")
def test_where_a_policy_refuses_it_nothing_is_counted_and_the_reason_said(
    scene: Scene, veth: Veth, pin_root: str
) -> None:
    with foreign(veth) as loaded:
        for report in (scene.counters.enable(), scene.counters.read()):
            assert (report.is_enabled, report.programs) == (True, ())
            assert report.not_counted == (
                f"What by_packet (id {loaded.id}) returns is not counted: xdpkit did not load it,"
                f" and has not its instructions; {BY_POLICY}",
            )
        assert pins(pin_root) == ["settings"]
        assert veth.interface.xdp.native == loaded.id


@pytest.mark.usefixtures("refused")
def test_a_dispatcher_of_libxdp_is_not_counted_where_a_policy_refuses_it(
    scene: Scene, veth: Veth
) -> None:
    with fake_dispatcher(2) as loaded, on(veth, loaded):
        assert scene.counters.enable().not_counted == (
            f"What xdp_dispatcher (id {loaded.id}) returns is not counted: it is libxdp's"
            f" dispatcher, and xdpkit did not load the programs in it; {BY_POLICY}",
        )


@pytest.mark.usefixtures("refused")
def test_programs_that_xdpkit_attached_are_counted_all_the_same(scene: Scene) -> None:
    scene.hook.add(spec("by_packet")).close()
    assert scene.counters.enable().not_counted == ()
    scene.send(frame(1))
    scene.until(by_packet=(0, 1, 0, 0, 0, 0))


def without_types() -> Fd:
    return raw_program("strange")


def of_another_function() -> Fd:
    """Load a program whose types call it a function of a number."""
    builder = BtfBuilder(byteorder=BYTEORDER)
    number = builder.add(Btf.parse(INT_BTF)[1])
    proto = builder.add(FuncProto(number, (Param("number", number),)))
    function = builder.add(Func("strange", proto, FuncLinkage.GLOBAL))
    with bpf.btf_load(builder.build()) as types:
        new = NewProgram(
            type=ProgType.XDP,
            code=machine_code(asm.mov(Register.R0, XdpAction.PASS), asm.exit()),
            license="GPL",
            name="strange",
            btf_fd=types.fileno(),
            func_info=struct.pack("=II", 0, function),
        )
        return bpf.prog_load(new, what="load a program with types")


@pytest.mark.parametrize(
    ("loading", "why"),
    [
        (without_types, "it has no type information (BTF) about its functions"),
        (
            of_another_function,
            "its main function does not take one argument, a struct xdp_md *",
        ),
    ],
)
def test_what_cannot_be_watched_is_not_counted_and_the_reason_said(
    scene: Scene, veth: Veth, loading: Callable[[], Fd], why: str
) -> None:
    with loading() as loaded:
        attach_by_netlink(veth, loaded)
        number = veth.interface.xdp.native
    assert scene.counters.enable().not_counted == (
        f"What strange (id {number}) returns is not counted: xdpkit did not load it, and has not"
        f" its instructions; nor can it be watched from outside: {why}.",
    )
    assert veth.interface.xdp.native == number


def assert_not_watched(scene: Scene, number: int, why: str) -> None:
    assert scene.counters.enable().not_counted == (
        f"What described (id {number}) returns is not counted: xdpkit did not load it, and has"
        f" not its instructions; nor can it be watched from outside: {why}.",
    )


@pytest.mark.needs("freplace")
@pytest.mark.usefixtures("watchable")
def test_what_another_program_replaces_is_not_counted_and_the_reason_said(
    scene: Scene, veth: Veth
) -> None:
    with described() as target:
        attach_by_netlink(veth, target)
        number = veth.interface.xdp.native or 0
        extension = {"attach_btf_id": XDP_FUNCTION_ID, "attach_prog_fd": target.fileno()}
        with (
            described(type=ProgType.EXT, **extension) as replacing,
            bpf.raw_tracepoint_open(replacing.fileno(), None, what="replace a function"),
        ):
            assert_not_watched(
                scene, number, "another program replaces its main function (freplace)"
            )
        assert scene.counters.enable().not_counted == ()


@pytest.mark.usefixtures("watchable")
def test_what_too_many_watch_already_is_not_counted_and_the_reason_said(
    scene: Scene, veth: Veth
) -> None:
    with contextlib.ExitStack() as watching, described() as target:
        attach_by_netlink(veth, target)
        number = veth.interface.xdp.native or 0

        def watch_on() -> None:
            while True:
                with load_watcher(target) as watcher:
                    link = bpf.raw_tracepoint_open(watcher.fileno(), None, what="watch")
                watching.enter_context(link)

        with pytest.raises(KernelRefused) as most:
            watch_on()
        assert most.value.errno == errno.E2BIG
        assert_not_watched(scene, number, "as many programs watch it as the kernel allows")


def test_what_runs_elsewhere_is_not_watched(scene: Scene, veth: Veth) -> None:
    with foreign(veth):
        (attached,) = scene.hook.status().attached
        assert why_not(replace(attached, mode=Mode.OFFLOAD), veth.interface) == (
            "nor can it be watched from outside: it runs on the NIC itself"
        )
        assert why_not(attached, replace(veth.interface, kind="bond")) == (
            "nor can it be watched from outside: a bond has its program run by the interfaces"
            " below it"
        )
