# SPDX-License-Identifier: Apache-2.0
"""What the kernel refuses is provoked for real, explained, and put right as the remedy says.

A case prepares an interface, tries what will be refused, is given the explanation, does what it
says, and tries again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import pytest

import xdpkit
from tests.kernel import net
from tests.kernel.attaching import program
from tests.kernel.net import Veth, make_veth, namespace
from xdpkit.capabilities import Kernel, Release, written
from xdpkit.errors import KernelRefused, UsageError, errno_name
from xdpkit.hook import catalogue
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.refusals import Explanation, explain
from xdpkit.interfaces import Interface, resolve
from xdpkit.interfaces.observation import Observation, observe
from xdpkit.kernel.extack import listening
from xdpkit.syscalls import bpf, rtnetlink
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.syscalls.netns import entered, path_of
from xdpkit.uapi.bpf import BPF_F_REPLACE, AttachType, Cmd, ProgFlags, ProgType, XdpAction
from xdpkit.uapi.if_link import XdpFlags

PASS = struct.pack("=BBhi", 0xB7, 0, 0, XdpAction.PASS) + struct.pack("=BBhi", 0x95, 0, 0, 0)

# More than a process may have open.
NO_DESCRIPTOR = 1 << 30


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is tried: it fails the first time, and not after the remedy.

    Attributes:
        act: does it. interface: on which.
        mode, verb, via: how. removal: what takes off what is there.
    """

    act: Callable[[], object]
    interface: Interface
    mode: Mode = Mode.NATIVE
    verb: str = "attach"
    via: Via = Via.LINK
    removal: str | None = None


Steps = Generator[Attempt, Explanation, None]


@dataclass(slots=True)
class Stage:
    """A namespace with a veth pair, and all that a case opens."""

    veth: Veth
    resources: contextlib.ExitStack
    links: list[Fd] = field(default_factory=list)

    @property
    def interface(self) -> Interface:
        return self.veth.interface

    def shell(self, command: str) -> None:
        subprocess.run(command, shell=True, check=True)

    def here(self, command: str) -> None:
        self.shell(f"nsenter --net={path_of(self.veth.netns)} {command}")

    def program(
        self,
        *,
        type: ProgType = ProgType.XDP,
        attach_type: AttachType | int = AttachType.XDP,
        flags: ProgFlags = ProgFlags(0),
        ifindex: int = 0,
    ) -> Fd:
        new = bpf.NewProgram(
            type=type,
            code=PASS,
            license="GPL",
            name="refused",
            attach_type=attach_type,
            flags=flags,
            ifindex=ifindex,
        )
        with entered(self.veth.netns):
            return self.resources.enter_context(bpf.prog_load(new, what="load"))

    def link(self, program: Fd, flags: XdpFlags = XdpFlags.DRV_MODE, index: int = 0) -> Fd:
        with entered(self.veth.netns):
            link = bpf.link_create(
                program.fileno(), index or self.interface.index, AttachType.XDP, flags
            )
        return self.resources.enter_context(link)

    def update(self, link: Fd, program: Fd, expected: Fd | None = None) -> None:
        bpf.link_update(
            link.fileno(),
            program.fileno(),
            flags=BPF_F_REPLACE if expected is not None else 0,
            expected=expected.fileno() if expected is not None else None,
        )

    def set(
        self,
        program: int,
        flags: XdpFlags = XdpFlags.DRV_MODE,
        expected: int | None = None,
        index: int = 0,
    ) -> None:
        with entered(self.veth.netns):
            connection = NetlinkSocket()
        with connection:
            rtnetlink.set_xdp(
                connection,
                index or self.interface.index,
                fd=program,
                flags=flags,
                expected=expected,
                what="set",
            )

    def removal(self, word: str = "xdpdrv") -> str:
        enter = f"nsenter --net={path_of(self.veth.netns)}"
        return f"{enter} ip link set dev {self.veth.name} {word} off"

    def set_peers_mtu(self, mtu: int) -> None:
        with net.rtnetlink(self.veth.peer_netns) as connection:
            connection.link("set", ifname=self.veth.peer, mtu=mtu)


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    with namespace() as name, contextlib.ExitStack() as resources:
        yield Stage(make_veth(name), resources)


def commands(explanation: Explanation) -> list[str]:
    """Return the commands that a remedy says to type."""
    remedies = (explanation.remedy or "").split("; or ")
    return [f"nsenter {text.partition('nsenter ')[2]}" for text in remedies if "nsenter " in text]


# The cases, by the kernel's text; by the errno where it says nothing.


def peer_mtu(stage: Stage) -> Steps:
    stage.set_peers_mtu(9000)
    plain, frags = stage.program(), stage.program(flags=ProgFlags.XDP_HAS_FRAGS)
    told = yield Attempt(lambda: stage.link(plain), stage.interface)
    assert "section xdp.frags" in str(told.remedy)
    stage.link(frags).close()
    (command,) = commands(told)
    stage.shell(command)
    stage.link(plain)


def peer_mtu_by_netlink(stage: Stage) -> Steps:
    stage.set_peers_mtu(9000)
    plain = stage.program()
    told = yield Attempt(lambda: stage.set(plain.fileno()), stage.interface, via=Via.NETLINK)
    (command,) = commands(told)
    stage.shell(command)
    stage.set(plain.fileno())


def peer_mtu_at_link_update(stage: Stage) -> Steps:
    plain, frags = stage.program(), stage.program(flags=ProgFlags.XDP_HAS_FRAGS)
    link = stage.link(frags)
    stage.set_peers_mtu(9000)
    told = yield Attempt(lambda: stage.update(link, plain), stage.interface, verb="replace")
    (command,) = commands(told)
    stage.shell(command)
    stage.update(link, plain)


def peer_queues(stage: Stage) -> Steps:
    stage.here(f"ethtool -L {stage.veth.name} rx 2")
    plain = stage.program()
    told = yield Attempt(lambda: stage.link(plain), stage.interface)
    (command,) = commands(told)
    stage.shell(command)
    stage.link(plain)


def native_beside_generic(stage: Stage) -> Steps:
    plain = stage.program()
    generic = stage.link(plain, XdpFlags.SKB_MODE)
    told = yield Attempt(lambda: stage.link(plain), stage.interface)
    assert str(told.remedy).startswith("detach it first")
    generic.close()
    stage.link(plain)


def generic_beside_native(stage: Stage) -> Steps:
    plain = stage.program()
    stage.set(plain.fileno())
    told = yield Attempt(
        lambda: stage.set(plain.fileno(), XdpFlags.SKB_MODE),
        stage.interface,
        mode=Mode.GENERIC,
        via=Via.NETLINK,
        removal=stage.removal(),
    )
    (command,) = commands(told)
    stage.shell(command)
    stage.set(plain.fileno(), XdpFlags.SKB_MODE)


def link_against_netlink(stage: Stage) -> Steps:
    plain = stage.program()
    stage.set(plain.fileno())
    told = yield Attempt(lambda: stage.link(plain), stage.interface, removal=stage.removal())
    (command,) = commands(told)
    stage.shell(command)
    stage.link(plain)


def netlink_against_link(stage: Stage) -> Steps:
    plain = stage.program()
    link = stage.link(plain)
    told = yield Attempt(lambda: stage.set(plain.fileno()), stage.interface, via=Via.NETLINK)
    assert str(told.remedy).startswith("detach that link first")
    link.close()
    stage.set(plain.fileno())


def link_against_link(stage: Stage) -> Steps:
    one, other = stage.program(), stage.program()
    link = stage.link(one)
    told = yield Attempt(lambda: stage.link(other), stage.interface)
    assert "only by that link" in told.cause
    stage.update(link, other)
    link.close()
    stage.link(other)


def detaching_by_netlink_what_a_link_holds(stage: Stage) -> Steps:
    link = stage.link(stage.program())
    told = yield Attempt(lambda: stage.set(-1), stage.interface, verb="detach", via=Via.NETLINK)
    assert "a bpf_link holds the program" in told.cause
    link.close()
    stage.set(-1)


def update_if_noexist(stage: Stage) -> Steps:
    plain = stage.program()
    flags = XdpFlags.DRV_MODE | XdpFlags.UPDATE_IF_NOEXIST
    stage.set(plain.fileno())
    told = yield Attempt(
        lambda: stage.set(plain.fileno(), flags),
        stage.interface,
        via=Via.NETLINK,
        removal=stage.removal(),
    )
    (command,) = commands(told)
    stage.shell(command)
    stage.set(plain.fileno(), flags)


def expected_by_netlink(stage: Stage) -> Steps:
    old, new, wrong = stage.program(), stage.program(), stage.program()
    stage.set(old.fileno())
    told = yield Attempt(
        lambda: stage.set(new.fileno(), expected=wrong.fileno()),
        stage.interface,
        verb="replace",
        via=Via.NETLINK,
    )
    assert "expect that" in str(told.remedy)
    stage.set(new.fileno(), expected=old.fileno())


def expected_by_link(stage: Stage) -> Steps:
    old, new, wrong = stage.program(), stage.program(), stage.program()
    link = stage.link(old)
    told = yield Attempt(lambda: stage.update(link, new, wrong), stage.interface, verb="replace")
    assert "expect that" in str(told.remedy)
    stage.update(link, new, old)


def another_attach_type(stage: Stage) -> Steps:
    old, new = stage.program(attach_type=0), stage.program()
    link = stage.link(old)
    told = yield Attempt(lambda: stage.update(link, new), stage.interface, verb="replace")
    assert str(told.remedy).startswith("detach the old one, then attach the new one")
    link.close()
    stage.link(new)


def detached_link(stage: Stage) -> Steps:
    one, other = stage.program(), stage.program()
    link = stage.link(one)
    bpf.link_detach(link.fileno())
    told = yield Attempt(lambda: stage.update(link, other), stage.interface, verb="replace")
    assert told.remedy is None


def link_of_an_interface_that_is_gone(stage: Stage) -> Steps:
    one, other = stage.program(), stage.program()
    link, interface = stage.link(one), stage.interface
    with net.rtnetlink(stage.veth.netns) as connection:
        connection.link("del", ifname=stage.veth.name)
    told = yield Attempt(lambda: stage.update(link, other), interface, verb="replace")
    assert told.remedy is None


def interface_that_is_gone(stage: Stage) -> Steps:
    plain, interface = stage.program(), stage.interface
    with net.rtnetlink(stage.veth.netns) as connection:
        connection.link("del", ifname=stage.veth.name)
    told = yield Attempt(
        lambda: stage.set(plain.fileno(), index=interface.index), interface, via=Via.NETLINK
    )
    assert told.remedy is None


def flags_of_a_link(stage: Stage) -> Steps:
    plain = stage.program()
    flags = XdpFlags.DRV_MODE | XdpFlags.UPDATE_IF_NOEXIST
    told = yield Attempt(lambda: stage.link(plain, flags), stage.interface)
    assert "XDP_FLAGS_DRV_MODE" in str(told.remedy)
    stage.link(plain, XdpFlags.DRV_MODE)


def two_modes(stage: Stage) -> Steps:
    plain = stage.program()
    flags = XdpFlags.DRV_MODE | XdpFlags.SKB_MODE
    told = yield Attempt(lambda: stage.link(plain, flags), stage.interface)
    assert told.remedy == "name one mode"
    stage.link(plain, XdpFlags.SKB_MODE)


def program_of_a_devmap(stage: Stage) -> Steps:
    member = stage.program(attach_type=AttachType.XDP_DEVMAP)
    told = yield Attempt(lambda: stage.link(member), stage.interface)
    assert "of section xdp," in str(told.remedy)
    stage.link(stage.program())


def program_of_a_cpumap(stage: Stage) -> Steps:
    member = stage.program(attach_type=AttachType.XDP_CPUMAP)
    told = yield Attempt(lambda: stage.link(member), stage.interface)
    assert "of section xdp," in str(told.remedy)
    stage.link(stage.program())


def bound_to_another_device(stage: Stage) -> Steps:
    with entered(stage.veth.netns):
        peer = resolve(stage.veth.peer)
    bound = stage.program(flags=ProgFlags.XDP_DEV_BOUND_ONLY, ifindex=peer.index)
    told = yield Attempt(lambda: stage.link(bound), stage.interface)
    index = stage.interface.index
    assert str(told.remedy).endswith(f"ifindex={index})")
    stage.link(stage.program(flags=ProgFlags.XDP_DEV_BOUND_ONLY, ifindex=index))


def bound_in_generic_mode(stage: Stage) -> Steps:
    bound = stage.program(flags=ProgFlags.XDP_DEV_BOUND_ONLY, ifindex=stage.interface.index)
    told = yield Attempt(
        lambda: stage.link(bound, XdpFlags.SKB_MODE), stage.interface, mode=Mode.GENERIC
    )
    assert "native mode" in str(told.remedy)
    stage.link(bound)


def bridge(stage: Stage) -> Interface:
    """Make a bridge; its driver has no native XDP."""
    with net.rtnetlink(stage.veth.netns) as connection:
        connection.link("add", ifname="br0", kind="bridge")
    return resolve("br0", netns=stage.veth.netns)


def driver_without_native_xdp(stage: Stage) -> Steps:
    plain, upper = stage.program(), bridge(stage)
    told = yield Attempt(lambda: stage.link(plain, index=upper.index), upper)
    assert str(told.remedy).startswith("attach in generic mode")
    stage.link(plain, XdpFlags.SKB_MODE, upper.index)


def device_above_has_a_program(stage: Stage) -> Steps:
    plain, upper = stage.program(), bridge(stage)
    link = stage.link(plain, XdpFlags.SKB_MODE, upper.index)
    with net.rtnetlink(stage.veth.netns) as connection:
        connection.link("set", ifname=stage.veth.name, master=upper.index)
    told = yield Attempt(lambda: stage.link(plain), stage.interface)
    assert told.remedy == "detach it there first"
    link.close()
    stage.link(plain)


def on_the_nic(stage: Stage) -> Steps:
    plain = stage.program()
    told = yield Attempt(
        lambda: stage.link(plain, XdpFlags.HW_MODE), stage.interface, mode=Mode.OFFLOAD
    )
    assert told.remedy is None


def not_an_xdp_program(stage: Stage) -> Steps:
    other = stage.program(type=ProgType.SOCKET_FILTER, attach_type=0)
    told = yield Attempt(lambda: stage.set(other.fileno()), stage.interface, via=Via.NETLINK)
    assert told.remedy is None


def closed_program(stage: Stage) -> Steps:
    told = yield Attempt(lambda: stage.set(NO_DESCRIPTOR), stage.interface, via=Via.NETLINK)
    assert told.remedy is None


SAID: dict[Callable[[Stage], Steps], str] = {
    peer_mtu: "Peer MTU is too large to set XDP",
    peer_mtu_by_netlink: "Peer MTU is too large to set XDP",
    peer_mtu_at_link_update: "Peer MTU is too large to set XDP",
    peer_queues: "XDP expects number of rx queues not less than peer tx queues",
    native_beside_generic: "Native and generic XDP can't be active at the same time",
    generic_beside_native: "Native and generic XDP can't be active at the same time",
    link_against_netlink: "Can't replace active XDP program with BPF link",
    netlink_against_link: "Can't replace active BPF XDP link",
    link_against_link: "Can't replace active BPF XDP link",
    detaching_by_netlink_what_a_link_holds: "Can't replace active BPF XDP link",
    update_if_noexist: "XDP program already attached",
    expected_by_netlink: "Active program does not match expected",
    flags_of_a_link: "Invalid XDP flags for BPF link attachment",
    two_modes: "Only one XDP mode flag can be set",
    program_of_a_devmap: "BPF_XDP_DEVMAP programs can not be attached to a device",
    program_of_a_cpumap: "BPF_XDP_CPUMAP programs can not be attached to a device",
    bound_to_another_device: "Program bound to different device",
    bound_in_generic_mode: "Can't attach device-bound programs in generic mode",
    driver_without_native_xdp: "Underlying driver does not support XDP in native mode",
    device_above_has_a_program: "Cannot attach when an upper device already has a program",
}

SILENT: dict[Callable[[Stage], Steps], str] = {
    expected_by_link: "EPERM",
    another_attach_type: "EINVAL",
    detached_link: "ENOLINK",
    link_of_an_interface_that_is_gone: "ENOLINK",
    interface_that_is_gone: "ENODEV",
    on_the_nic: "EINVAL",
    not_an_xdp_program: "EINVAL",
    closed_program: "EBADF",
}

# What a case does beside the refusal came with these releases: programs with frags (f45d5b6ce2e8),
# a veth's channels (34829eec3b77), programs that are bound (2b3486bc2d23).
NEEDS: dict[Callable[[Stage], Steps], Release] = {
    peer_mtu: (5, 18),
    peer_mtu_at_link_update: (5, 18),
    peer_queues: (5, 14),
    bound_to_another_device: (6, 3),
}

# The newest of all that is provoked.
ALL = (6, 12)


def skip_before(release: Release) -> None:
    kernel = Kernel.parse(os.uname().release)
    if not kernel.has(release):
        pytest.skip(f"Linux {written(release)} has it, this is {kernel.text}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the kernel said to a case, and the explanation; names are made the same everywhere."""

    errno: str
    said: str | None
    cause: str
    remedy: str | None


def play(case: Callable[[Stage], Steps]) -> Outcome:
    """Play a case to its end, through the remedy."""
    with staged() as stage:
        steps = case(stage)
        attempt = next(steps)
        with listening() as words:
            with pytest.raises(KernelRefused) as caught:
                attempt.act()
            said, heard = caught.value.extack or words.last(), words.is_listening
        number = caught.value.errno or 0
        explanation = explain(
            number,
            said,
            attempt.interface,
            attempt.mode,
            attempt.verb,
            via=attempt.via,
            heard=heard,
            seen=look(attempt.interface),
            removal=attempt.removal,
        )
        with contextlib.suppress(StopIteration):
            steps.send(explanation)
            pytest.fail("a case tries once")
        return Outcome(
            errno_name(number),
            anonymous(said, stage.veth) if said else None,
            anonymous(explanation.cause, stage.veth),
            anonymous(explanation.remedy, stage.veth) if explanation.remedy else None,
        )


def look(interface: Interface) -> Observation | None:
    try:
        return observe(interface.index, netns_name=interface.netns)
    except UsageError:
        return None


def anonymous(text: str, veth: Veth) -> str:
    text = text.replace(veth.peer, "veth1").replace(veth.name, "veth0")
    text = text.replace(veth.netns, "blue")
    return re.sub(r"ifindex=\d+", "ifindex=N", text)


@pytest.mark.parametrize("case", SAID, ids=lambda case: case.__name__)
def test_what_the_kernel_says_is_in_the_catalogue_and_the_remedy_works(
    case: Callable[[Stage], Steps],
) -> None:
    found = catalogue.find(SAID[case], "veth")
    assert found is not None
    refusal, _ = found
    skip_before(max(refusal.since or (0, 0), NEEDS.get(case, (0, 0))))

    outcome = play(case)

    assert (outcome.said or "").removeprefix("veth: ") == refusal.text == SAID[case]
    assert outcome.errno == refusal.errno


@pytest.mark.parametrize("case", SILENT, ids=lambda case: case.__name__)
def test_what_the_kernel_says_nothing_about_is_told_by_its_errno(
    case: Callable[[Stage], Steps],
) -> None:
    outcome = play(case)

    assert (outcome.errno, outcome.said) == (SILENT[case], None)


def test_all_refusals_that_can_be_had_here_read_well(golden: Callable[[str, str], None]) -> None:
    skip_before(ALL)
    told = []
    for case in (*SAID, *SILENT):
        outcome = play(case)
        lines = [f"{case.__name__.replace('_', ' ')}: {outcome.cause} ({outcome.errno})"]
        if outcome.remedy:
            lines.append(f"Remedy: {outcome.remedy}")
        told.append("\n".join(lines))

    golden("refusals.txt", "\n\n".join(told) + "\n")


@pytest.mark.parametrize("via", Via)
def test_adding_and_replacing_explain_a_refusal_and_the_remedy_works(via: Via) -> None:
    skip_before(NEEDS[peer_mtu])
    frags = program("sections.c", "on_interface_frags")
    with staged() as stage:
        hook = xdpkit.Hook(stage.veth.name, netns=stage.veth.netns)
        stage.set_peers_mtu(9000)
        with pytest.raises(KernelRefused) as at_add:
            hook.add(program(), via=via, pin=False, force=True)
        added = stage.resources.enter_context(hook.add(frags, via=via, pin=False))
        with pytest.raises(KernelRefused) as at_replace:
            hook.replace(program(), expected=added, force=True)

        for caught in (at_add, at_replace):
            refused = caught.value
            assert refused.cause.startswith(
                f"the MTU of {stage.veth.name}'s veth peer is too large, 9000, for packets"
            )
            assert refused.extack == "veth: Peer MTU is too large to set XDP"
        (command,) = commands(Explanation(refused.cause, refused.remedy))
        stage.shell(command)
        new = stage.resources.enter_context(hook.replace(program(), expected=added))
        assert stage.interface.xdp.native == new.program.id


def test_what_another_thread_is_told_is_not_heard() -> None:
    with staged() as stage:
        plain = stage.program()

        def provoke() -> None:
            with pytest.raises(KernelRefused):
                stage.link(plain, XdpFlags.DRV_MODE | XdpFlags.SKB_MODE)

        with listening() as words:
            other = threading.Thread(target=provoke)
            other.start()
            other.join()
            assert words.is_listening
            assert words.last() is None
            provoke()
            assert words.last() == "Only one XDP mode flag can be set"


def test_without_the_privilege_to_listen_nothing_is_heard_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = bpf.funnel
    monkeypatch.setattr(
        bpf,
        "funnel",
        lambda cmd, argument: (
            -errno.EPERM if cmd == Cmd.RAW_TRACEPOINT_OPEN else real(cmd, argument)
        ),
    )

    with listening() as words:
        assert not words.is_listening
        assert words.last() is None
