# SPDX-License-Identifier: Apache-2.0
"""Each command under the capabilities that docs/privileges.md names for it, and without each.

:data:`VERBS` is what the table there says; the table is made of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import xdpkit
from tests.kernel.attaching import on_hook, program, raw_program
from tests.kernel.joined import offloads
from tests.kernel.net import Veth, make_veth, namespace
from tests.kernel.ports_net import delete, left, make_again, receiving, source
from tests.kernel.process import COMMAND, Done, shipped, xdpkit_command
from xdpkit import PortTable, monitor
from xdpkit.capabilities import Kernel
from xdpkit.hook import Via
from xdpkit.interfaces.observation import GRO
from xdpkit.ports.peers import CHECKSUMS, VLAN_TAGS
from xdpkit.syscalls import bpf
from xdpkit.syscalls.netns import path_of
from xdpkit.tables.model import Port
from xdpkit.uapi.capability import Capability

DOCUMENT = Path(__file__).parents[2] / "docs" / "privileges.md"

BPF, NET_ADMIN, PERFMON, SYS_ADMIN = (
    Capability.BPF,
    Capability.NET_ADMIN,
    Capability.PERFMON,
    Capability.SYS_ADMIN,
)
COLUMNS = (BPF, NET_ADMIN, PERFMON, SYS_ADMIN)

NOBODY = 65534


State = tuple[bool, Mapping[str, tuple[Port, ...]], Mapping[str, bool], bool]
"""Of a stage: if there is a program, the tables, the peer's offloads, if all is counted."""


@dataclass(frozen=True, slots=True)
class Stage:
    """An interface in a namespace of its own, and a place for pins.

    Attributes:
        far: another one, whose peer is in another namespace; made when it is first asked for.
    """

    veth: Veth
    far: Callable[[], Veth]
    pin_root: str
    object: str

    @property
    def hook(self) -> xdpkit.Hook:
        return xdpkit.Hook(self.veth.name, netns=self.veth.netns, pin_root=self.pin_root)

    def is_occupied(self) -> bool:
        return on_hook(self.veth, self.pin_root) is not None

    def state(self) -> State:
        """What a command that refuses leaves as it was."""
        return (
            self.is_occupied(),
            left(self.pin_root) if os.path.isdir(f"{self.pin_root}/xdpkit") else {},
            self.offloads(self.veth),
            monitor.installed(pin_root=self.pin_root) is not None,
        )

    @staticmethod
    def offloads(veth: Veth) -> dict[str, bool]:
        return offloads(veth.peer_netns, veth.peer, GRO, *CHECKSUMS, *VLAN_TAGS)

    def in_table(self, *veths: Veth, prepare: bool = False) -> None:
        """Have a table with these as ports, be they fit or not."""
        with PortTable.create("lan", pin_root=self.pin_root) as table:
            for veth in veths:
                table.add(veth.name, netns=veth.netns, prepare=prepare, force=True)


def nothing(_: Stage) -> None:
    """The hook is empty."""


def ours(stage: Stage) -> None:
    stage.hook.add(program()).close()


def ours_by_netlink(stage: Stage) -> None:
    stage.hook.add(program(), via=Via.NETLINK).close()


def ours_pending(stage: Stage) -> None:
    stage.hook.add(program(), revert_after=600).close()


def ours_by_queue(stage: Stage) -> None:
    stage.hook.queues[0].add(program()).close()


def resident(stage: Stage) -> None:
    monitor.install(pin_root=stage.pin_root)


def ours_and_resident(stage: Stage) -> None:
    ours(stage)
    resident(stage)


def foreign_pins(stage: Stage) -> None:
    """Pins that say of a program only that something else than our link holds it."""
    folder = f"{stage.pin_root}/xdpkit"
    for path in (folder, f"{folder}/1-1"):
        os.mkdir(path, 0o700)
    with raw_program("elsewhere") as loaded:
        bpf.obj_pin(loaded.fileno(), f"{folder}/1-1/program-1", what="pin")


def empty_table(stage: Stage) -> None:
    stage.in_table()


def in_table(stage: Stage) -> None:
    stage.in_table(stage.veth)


def prepared_in_table(stage: Stage) -> None:
    stage.in_table(stage.veth, prepare=True)


def far_prepared_in_table(stage: Stage) -> None:
    stage.in_table(stage.far(), prepare=True)


def far_receives(stage: Stage) -> None:
    stage.in_table()
    with receiving(stage.far()):
        """Netlink keeps the program there."""


def made_anew(stage: Stage) -> None:
    """The port's interface has gone and come back, which whoever watches has to tell."""
    stage.in_table(stage.veth)
    delete(stage.veth)
    make_again(stage.veth)


def counted_in_table(stage: Stage) -> None:
    stage.in_table(stage.veth)
    monitor.install(transmit=True, pin_root=stage.pin_root)


@dataclass(frozen=True, slots=True)
class Verb:
    """A row of the table: a command, what it takes, and what it does without.

    Attributes:
        name: what the table calls it.
        arguments: of the command; {iface}, {object} and so on are filled in.
        needed: the capabilities without which it fails.
        helped: others: what it says without; {iface} is filled in.
        is_of_the_verifier: whether the verifier takes some programs only from CAP_PERFMON.
        before: what to prepare with all privilege.
        outside: whether to run it in the namespace that the tests are in, not in the interface's.
        status: how it ends with what it needs, and without what helps.
        occupied: whether the hook has a program afterwards, None if that is not the point.
        source: what {object} is, a file of ``c/``; otherwise a program that asks for nothing.
        goes_on: whether it runs until a signal, with a line for each thing that happens.
    """

    name: str
    arguments: str
    needed: tuple[Capability, ...] = ()
    helped: Mapping[Capability, str] = field(default_factory=dict)
    is_of_the_verifier: bool = False
    before: Callable[[Stage], None] = nothing
    outside: bool = False
    status: int = 0
    occupied: bool | None = None
    source: str = ""
    goes_on: bool = False

    @property
    def needed_here(self) -> tuple[Capability, ...]:
        """What it takes on this kernel."""
        # Linux 5.19, "bpf: refine kernel.unprivileged_bpf_disabled behaviour".
        touches_pins = "{pins}" in self.arguments
        if touches_pins and not Kernel.parse(os.uname().release).has((5, 19)):
            return (*self.needed, BPF)
        return self.needed

    @property
    def row(self) -> str:
        return f"| `{self.name}` | {' | '.join(map(self._cell, COLUMNS))} |"

    def _cell(self, capability: Capability) -> str:
        if capability in self.needed:
            return "needed"
        if capability in self.helped:
            return "helps"
        return "some programs" if capability is PERFMON and self.is_of_the_verifier else ""


VERBS = (
    Verb("inspect", "inspect {object}"),
    Verb("build", "build {source} -o {output}"),
    Verb("include", "include"),
    Verb("check --profile", "check {object} --profile mlx5@6.1"),
    Verb("check", "check {iface} {object}"),
    Verb("device", "device {iface}"),
    Verb(
        "status",
        "status {iface} {pins}",
        helped={SYS_ADMIN: "names, maps and records of programs cannot be looked up"},
        before=ours,
        occupied=True,
    ),
    Verb(
        "run",
        "run {object} --input {capture} {pins}",
        needed=(BPF, NET_ADMIN),
        is_of_the_verifier=True,
    ),
    Verb(
        "attach",
        "attach {iface} {object} {pins}",
        needed=(BPF, NET_ADMIN),
        is_of_the_verifier=True,
        occupied=True,
    ),
    Verb(
        "attach --netlink",
        "attach {iface} {object} --netlink {pins}",
        needed=(BPF, NET_ADMIN),
        is_of_the_verifier=True,
        occupied=True,
    ),
    Verb(
        "attach --revert-after",
        "attach {iface} {object} --revert-after 600s {pins}",
        needed=(SYS_ADMIN,),
        occupied=True,
    ),
    Verb(
        "attach (to a port)",
        "attach {iface} {object} {pins}",
        needed=(BPF, NET_ADMIN),
        is_of_the_verifier=True,
        before=in_table,
        occupied=True,
        source="ports_optional",
    ),
    Verb(
        "replace",
        "replace {iface} {object} {pins}",
        needed=(BPF, NET_ADMIN),
        helped={SYS_ADMIN: "the change was not compared-and-swapped"},
        is_of_the_verifier=True,
        before=ours,
        occupied=True,
    ),
    Verb(
        "replace --expect",
        "replace {iface} {object} --expect {id} {pins}",
        needed=(SYS_ADMIN,),
        before=ours,
        occupied=True,
    ),
    Verb("detach", "detach {iface} {pins}", before=ours, occupied=False),
    Verb(
        "detach --expect",
        "detach {iface} --expect {id} {pins}",
        needed=(SYS_ADMIN,),
        before=ours,
        occupied=False,
    ),
    Verb(
        "detach (by netlink)",
        "detach {iface} {pins}",
        needed=(NET_ADMIN, SYS_ADMIN),
        before=ours_by_netlink,
        occupied=False,
    ),
    Verb(
        "confirm",
        "confirm {iface} {pins}",
        needed=(SYS_ADMIN,),
        before=ours_pending,
        occupied=True,
    ),
    Verb(
        "attach --queue",
        "attach {iface} {object} --queue 0 {pins}",
        needed=(SYS_ADMIN,),
        occupied=True,
    ),
    Verb(
        "replace --queue",
        "replace {iface} {object} --queue 0 {pins}",
        needed=(SYS_ADMIN,),
        before=ours_by_queue,
        occupied=True,
    ),
    Verb(
        "detach --queue",
        "detach {iface} --queue 0 {pins}",
        needed=(SYS_ADMIN,),
        before=ours_by_queue,
        occupied=False,
    ),
    Verb(
        "detach --all",
        "detach {iface} --all {pins}",
        needed=(SYS_ADMIN,),
        before=ours_by_queue,
        occupied=False,
    ),
    Verb(
        "counters enable",
        "counters enable {iface} {pins}",
        needed=(SYS_ADMIN,),
        before=ours,
        occupied=True,
    ),
    Verb(
        "counters disable",
        "counters disable {iface} {pins}",
        needed=(SYS_ADMIN,),
        before=ours,
        occupied=True,
    ),
    Verb(
        "counters show",
        "counters show {iface} {pins}",
        needed=(SYS_ADMIN,),
        before=ours,
        occupied=True,
    ),
    Verb("monitor install", "monitor install {pins}", needed=(SYS_ADMIN,)),
    Verb("monitor remove", "monitor remove {pins}", before=resident),
    Verb(
        "monitor show",
        "monitor show {iface} --once {pins}",
        helped={SYS_ADMIN: "What goes wrong cannot be read: this process lacks"},
        before=ours_and_resident,
        occupied=True,
    ),
    Verb(
        "events",
        "events {iface} --duration 1ms {pins}",
        needed=(BPF, PERFMON),
        helped={SYS_ADMIN: "not all programs are tapped: this process lacks"},
        before=ours,
        occupied=True,
    ),
    Verb(
        "capture",
        "capture {iface} --duration 1ms {pins}",
        needed=(SYS_ADMIN,),
        before=ours,
        occupied=True,
    ),
    Verb(
        "export",
        "export {iface} --once {pins}",
        helped={SYS_ADMIN: "The counters of {iface} cannot be read: this process lacks"},
        before=ours,
        occupied=True,
    ),
    Verb(
        "doctor",
        "doctor {iface} {pins}",
        helped={SYS_ADMIN: "the instructions of the programs on {iface} could not be looked at"},
        before=ours,
        occupied=True,
    ),
    Verb("ports create", "ports create lan {iface} --force {pins}", needed=(BPF, NET_ADMIN)),
    Verb("ports add", "ports add lan {iface} --force {pins}", needed=(BPF,), before=empty_table),
    Verb(
        "ports add --prepare",
        "ports add lan {iface} --prepare {pins}",
        needed=(BPF, NET_ADMIN),
        before=empty_table,
    ),
    Verb(
        "ports add --prepare (container)",
        "ports add lan {far} --prepare {pins}",
        needed=(NET_ADMIN, SYS_ADMIN),
        before=empty_table,
    ),
    Verb("ports remove", "ports remove lan 0 {pins}", needed=(BPF,), before=in_table),
    Verb(
        "ports remove (prepared)",
        "ports remove lan 0 {pins}",
        needed=(BPF, NET_ADMIN),
        before=prepared_in_table,
    ),
    Verb(
        "ports remove (container)",
        "ports remove lan 0 {pins}",
        needed=(NET_ADMIN, SYS_ADMIN),
        before=far_prepared_in_table,
    ),
    Verb(
        "ports remove --free",
        "ports remove lan 0 --free {pins}",
        needed=(SYS_ADMIN,),
        before=in_table,
    ),
    Verb("ports rename", "ports rename lan 0 uplink {pins}", needed=(BPF,), before=in_table),
    Verb("ports set", "ports set lan guests 0 {pins}", needed=(BPF, NET_ADMIN), before=in_table),
    Verb("ports show", "ports show {pins}", before=in_table),
    Verb("ports show (counted)", "ports show {pins}", needed=(SYS_ADMIN,), before=counted_in_table),
    Verb("ports destroy", "ports destroy lan {pins}", needed=(SYS_ADMIN,), before=in_table),
    Verb(
        "ports destroy --force", "ports destroy lan --force {pins}", needed=(BPF,), before=in_table
    ),
    Verb(
        "ports check",
        "ports check lan {far} -j {pins}",
        helped=dict.fromkeys((NET_ADMIN, SYS_ADMIN), "cannot be seen: this process lacks"),
        before=far_receives,
    ),
    Verb("ports watch", "ports watch lan {pins}", needed=(BPF,), before=made_anew, goes_on=True),
    Verb(
        "forward l2",
        "forward l2 {iface} {second} --prepare --duration 1ms {pins}",
        needed=(BPF, NET_ADMIN),
    ),
    Verb(
        "forward l3",
        "forward l3 {iface} {second} --prepare --duration 1ms {pins}",
        needed=(BPF, NET_ADMIN, PERFMON),
    ),
    Verb(
        "clean",
        "clean {pins}",
        helped={SYS_ADMIN: "its interface may be in a namespace that cannot be entered from here"},
        before=foreign_pins,
        outside=True,
        status=5,
    ),
    Verb("clean --all", "clean --all {pins}", needed=(SYS_ADMIN,), before=ours, occupied=False),
    Verb("-n NAME", "-n {netns} status {iface}", needed=(SYS_ADMIN,), outside=True),
)
NAMED = {verb.name: verb for verb in VERBS}


def require_capsh() -> None:
    if shutil.which("capsh") is None:
        pytest.skip("no capsh: apt-get install libcap2-bin")


@functools.cache
def all_names() -> tuple[str, ...]:
    """Return the names of all capabilities that this process may pass on, as capsh has them."""
    require_capsh()
    printed = subprocess.run(["capsh", "--print"], capture_output=True, check=True, text=True)
    (bounding,) = re.findall(r"^Bounding set =(\S+)$", printed.stdout, re.MULTILINE)
    return tuple(bounding.split(","))


def with_only(*capabilities: Capability) -> tuple[str, ...]:
    """Return the beginning of a command that runs the rest as root with these only."""
    kept = {each.kernel_name.lower() for each in capabilities}
    drop = f"--drop={','.join(name for name in all_names() if name not in kept)}"
    return ("capsh", "--shell=/bin/sh", drop, "--", "-c", 'exec "$0" "$@"')


def as_nobody_with(*capabilities: Capability) -> tuple[str, ...]:
    """Return the beginning of a command that runs the rest as another user with these.

    That user may read everything: the tests' Python is in root's home on some machines.
    """
    require_capsh()
    names = ",".join(["cap_dac_read_search", *(each.kernel_name.lower() for each in capabilities)])
    ambient = (f"--inh={names}", f"--addamb={names}")
    user = ("--keep=1", f"--gid={NOBODY}", f"--uid={NOBODY}")
    return ("capsh", "--shell=/bin/sh", *user, *ambient, "--", "-c", 'exec "$0" "$@"')


@pytest.fixture
def stage(veth: Veth, pin_root: str) -> Iterator[Stage]:
    with contextlib.ExitStack() as resources:

        @functools.cache
        def far() -> Veth:
            return make_veth(veth.netns, resources.enter_context(namespace()), queues=1)

        stage = Stage(veth, far, pin_root, program().object.path or "")
        yield stage
        for name in left(pin_root) if os.path.isdir(f"{pin_root}/xdpkit") else ():
            with PortTable.open(name, pin_root=pin_root) as table:
                table.destroy(force=True)
    # Whoever waits to undo a change sees that it is gone, and ends.
    with contextlib.suppress(xdpkit.XdpkitError):
        stage.hook.clear()
    with contextlib.suppress(xdpkit.XdpkitError):
        monitor.remove(pin_root=pin_root)


def run(verb: Verb, stage: Stage, folder: Path, *by: str, object_path: str | None = None) -> Done:
    """Prepare what a verb's command works on, and run it by another command."""
    verb.before(stage)
    return run_unprepared(verb, stage, folder, *by, object_path=object_path)


def run_unprepared(
    verb: Verb, stage: Stage, folder: Path, *by: str, object_path: str | None = None
) -> Done:
    capture = folder / "in.pcap"
    # The header of a file without packets, pcap-savefile(5).
    capture.write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
    empty = folder / "empty.c"
    empty.write_text("")
    present = on_hook(stage.veth, stage.pin_root)
    words = {
        "iface": stage.veth.name,
        "netns": stage.veth.netns,
        "object": object_path or (source(verb.source).path if verb.source else stage.object),
        "pins": f"--pin-root {stage.pin_root}",
        "capture": capture,
        "source": empty,
        "output": folder / "empty.o",
        "id": present.program.id if present is not None else 0,
    }
    if "{far}" in verb.arguments:
        words["far"] = stage.far().name
    if "{second}" in verb.arguments:
        words["second"] = make_veth(stage.veth.netns, queues=1).name
    inside = () if verb.outside else ("nsenter", f"--net={path_of(stage.veth.netns)}")
    arguments = verb.arguments.format(**words).split()
    if verb.goes_on:
        return until_a_line([*inside, *by, *COMMAND, *arguments])
    return xdpkit_command(*arguments, by=[*inside, *by])


def until_a_line(command: list[str]) -> Done:
    """Run a command until it has said something, and then end it by a signal."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        if line:
            running.send_signal(signal.SIGTERM)
        output, messages = running.communicate()
    return Done(running.returncode, line + output, messages)


def says_what_is_missing(done: Done, capability: Capability) -> bool:
    """Whether a command ended for lack of a capability, and said so."""
    said = done.messages
    return (
        done.status == xdpkit.MissingPrivilege.exit_code
        and f"this process lacks {capability.kernel_name}" in said
        and "Remedy: run it as root (sudo), or give it " in said
        and not any(word in said for word in ("EPERM", "EACCES", "Traceback", "verifier"))
    )


def test_the_table_in_the_documentation_is_what_is_tested() -> None:
    head = "".join(f" `{each.kernel_name}` |" for each in COLUMNS)
    lines = [f"| command |{head}", "|---|---|---|---|---|", *(verb.row for verb in VERBS)]
    assert "\n".join(lines) in DOCUMENT.read_text()


@pytest.mark.parametrize("verb", ["replace {iface} {object} {pins}", "detach {iface} {pins}"])
def test_programs_of_queues_that_cannot_be_seen_are_left_alone(
    verb: str, stage: Stage, tmp_path: Path
) -> None:
    ours_by_queue(stage)
    before = stage.hook.status()

    others = with_only(BPF, NET_ADMIN)
    done = run_unprepared(Verb("beside queues", verb), stage, tmp_path, *others)

    assert says_what_is_missing(done, SYS_ADMIN), done.messages
    assert stage.hook.status() == before


@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_a_command_works_with_no_more_than_it_is_said_to_need(
    name: str, stage: Stage, tmp_path: Path
) -> None:
    verb = NAMED[name]

    done = run(verb, stage, tmp_path, *with_only(*verb.needed_here))

    assert done.status == verb.status, done.messages
    told = done.output + done.messages
    for capability, said in verb.helped.items():
        assert said.format(iface=stage.veth.name) in told
        assert capability.kernel_name in told or verb.status
    if verb.occupied is not None:
        present = on_hook(stage.veth, stage.pin_root)
        assert (present is not None) == verb.occupied
        assert present is None or present.record is not None


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        pytest.param(verb.name, missing, id=f"{verb.name} without {missing.kernel_name}")
        for verb in VERBS
        for missing in verb.needed
    ],
)
def test_a_command_without_one_of_them_changes_nothing_and_names_it(
    name: str, missing: Capability, stage: Stage, tmp_path: Path
) -> None:
    verb = NAMED[name]
    # In bpf(2) CAP_SYS_ADMIN stands for the others.
    others = {*COLUMNS} if missing is SYS_ADMIN else {*verb.needed}
    verb.before(stage)
    before = stage.state()

    done = run_unprepared(verb, stage, tmp_path, *with_only(*(others - {missing})))

    assert says_what_is_missing(done, missing), done
    assert stage.state() == before


@pytest.mark.parametrize("name", [verb.name for verb in VERBS if verb.is_of_the_verifier])
def test_what_the_verifier_takes_from_the_privileged_only_is_told_as_that(
    name: str, stage: Stage, tmp_path: Path
) -> None:
    demanding = str(shipped("demo.o"))

    done = run(NAMED[name], stage, tmp_path, *with_only(BPF, NET_ADMIN), object_path=demanding)

    assert (done.status, done.output) == (xdpkit.MissingPrivilege.exit_code, "")
    assert "this process lacks CAP_PERFMON, so the verifier refuses it: " in done.messages
    assert done.messages.endswith("Remedy: run it as root (sudo), or give it CAP_PERFMON\n")


def test_a_peer_that_only_a_capability_leads_to_is_not_said_to_be_out_of_reach(
    stage: Stage, tmp_path: Path
) -> None:
    refused = Verb("fit by preparation", "ports add lan {far} {pins}", before=empty_table)
    done = run(refused, stage, tmp_path, *with_only(BPF, NET_ADMIN))

    assert done.status == xdpkit.RequirementUnmet.exit_code
    assert (
        "Remedy: run it as root (sudo), or give it CAP_SYS_ADMIN, and have it prepared (--prepare,"
        " prepare=True); or attach a program to the veth peer of " in done.messages
    )


def test_a_table_with_prepared_ports_is_destroyed_by_whoever_may_undo_that(
    stage: Stage, tmp_path: Path
) -> None:
    far_prepared_in_table(stage)
    far = stage.offloads(stage.far())
    before = stage.state()
    for allowed, missing in (((BPF, NET_ADMIN), SYS_ADMIN), ((SYS_ADMIN,), NET_ADMIN)):
        done = run_unprepared(NAMED["ports destroy --force"], stage, tmp_path, *with_only(*allowed))
        assert says_what_is_missing(done, missing), done
        assert (stage.state(), stage.offloads(stage.far())) == (before, far)

    done = run_unprepared(NAMED["ports destroy"], stage, tmp_path, *with_only(NET_ADMIN, SYS_ADMIN))
    assert done.status == 0, done.messages
    assert left(stage.pin_root) == {}
    assert stage.offloads(stage.far()) != far


def test_what_is_watched_and_cannot_be_prepared_again_is_told_with_what_is_missing(
    stage: Stage, tmp_path: Path
) -> None:
    far_prepared_in_table(stage)

    done = run_unprepared(NAMED["ports watch"], stage, tmp_path, *with_only(BPF, NET_ADMIN))

    assert "it cannot be prepared again: this process lacks CAP_SYS_ADMIN\n" in done.output


def test_with_perfmon_the_verifier_takes_it(stage: Stage, tmp_path: Path) -> None:
    demanding = str(shipped("demo.o"))
    allowed = with_only(BPF, NET_ADMIN, PERFMON)
    done = run(NAMED["attach"], stage, tmp_path, *allowed, object_path=demanding)
    assert done.status == 0, done.messages


def test_sys_admin_stands_for_the_others_but_not_in_netlink(stage: Stage, tmp_path: Path) -> None:
    refused = run(NAMED["attach --netlink"], stage, tmp_path, *with_only(SYS_ADMIN))
    assert says_what_is_missing(refused, NET_ADMIN), refused

    by_link = run(NAMED["attach"], stage, tmp_path, *with_only(SYS_ADMIN))
    assert by_link.status == 0, by_link.messages


def test_what_netlink_holds_is_not_taken_for_somebody_elses(stage: Stage, tmp_path: Path) -> None:
    done = run(NAMED["detach (by netlink)"], stage, tmp_path, *with_only(BPF, NET_ADMIN))
    assert "whose program is there cannot be told: " in done.messages
    assert "did not attach" not in done.messages


_ATTACH_ONE_PROGRAM_TWICE = """
import sys, xdpkit
from xdpkit import kernel
path, pin_root, *interfaces = sys.argv[1:]
with kernel.load(xdpkit.read(path).programs["minimal"]) as program:
    for name in interfaces:
        with xdpkit.Hook(name, pin_root=pin_root).add(program) as attached:
            print(attached.interface.name, attached.record is not None, *attached.notes[-1:])
"""


def test_a_program_on_a_second_hook_goes_without_a_record_if_the_first_cannot_be_found(
    stage: Stage,
) -> None:
    interfaces = (stage.veth.name, stage.veth.peer)
    done = subprocess.run(
        [
            *("nsenter", f"--net={path_of(stage.veth.netns)}", *with_only(BPF, NET_ADMIN)),
            *(sys.executable, "-c", _ATTACH_ONE_PROGRAM_TWICE),
            *(stage.object, stage.pin_root, *interfaces),
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{stage.veth.name} True")
    assert second == (
        f"{stage.veth.peer} False no record of minimal is kept, since the maps that are bound to it"
        " cannot be looked up: this process lacks CAP_SYS_ADMIN"
    )
    assert (
        xdpkit.detach(stage.veth.peer, netns=stage.veth.netns, pin_root=stage.pin_root).link_id
        is not None
    )


def test_another_users_pins_are_in_a_place_of_their_own(
    stage: Stage, tmp_path: Path, pin_root: str
) -> None:
    capable = as_nobody_with(BPF, NET_ADMIN)

    refused = run(NAMED["attach"], stage, tmp_path, *capable)
    assert refused.status == xdpkit.MissingPrivilege.exit_code
    assert f"{pin_root} belongs to another user, and so do the pins below it" in refused.messages
    assert "name a folder of your own on a BPF file system: --pin-root" in refused.messages
    assert os.listdir(pin_root) == []

    os.chown(pin_root, NOBODY, NOBODY)
    for name in ("attach", "status", "replace", "detach"):
        done = run_unprepared(NAMED[name], stage, tmp_path, *capable)
        assert done.status == 0, done.messages
        assert stage.is_occupied() == NAMED[name].occupied


def test_a_user_without_capabilities_is_not_sent_to_a_folder_of_his_own(
    stage: Stage, tmp_path: Path
) -> None:
    done = run(NAMED["attach"], stage, tmp_path, *as_nobody_with())
    assert done.status == xdpkit.MissingPrivilege.exit_code
    assert done.messages.endswith("Remedy: run it as root (sudo)\n")
