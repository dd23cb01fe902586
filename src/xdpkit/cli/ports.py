# SPDX-License-Identifier: Apache-2.0
"""``xdpkit ports``: port tables."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from xdpkit.cli import complete
from xdpkit.cli.command import Settings, pass_settings, subcommands
from xdpkit.cli.options import pin_root_option, policy_option
from xdpkit.cli.render import counted, emit, emit_json, message, printable
from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.uapi.bpf import AttachType, ProgType

if TYPE_CHECKING:
    from xdpkit.interfaces import Interface
    from xdpkit.obj import ProgramSpec
    from xdpkit.ports import PortTable
    from xdpkit.tables.model import Port

    Prepare = Literal["gro", "program"] | bool

_F = TypeVar("_F", bound=Callable[..., Any])

_ANY_WAY = "any"
_WAYS = ("gro", "program")


@subcommands(
    "ports",
    examples="""
xdpkit ports create lan eth1 eth2 eth3
xdpkit ports show lan
xdpkit ports watch
""",
)
def command() -> None:
    """Give interfaces port numbers that stay, for programs that redirect to many ports.

    A port table is a map in the kernel from port numbers to interfaces. A program redirects to a
    port by its number, and knows the number of the port that a frame came in by. An interface that
    goes and comes back keeps its port.
    """


def _require_bpffs(what: str, pin_root: str) -> None:
    """Refuse to look for tables where there can be none, which would find nothing for ever.

    Raises:
        RequirementUnmet: it is no bpffs, or it is hidden here.
    """
    from xdpkit.kernel.folder import Folder
    from xdpkit.syscalls.statfs import is_bpffs

    if not is_bpffs(pin_root):
        Folder(pin_root).require_lasting(what, alternative=False)


def _prepare(_: click.Context, __: click.Parameter, text: str | None) -> Prepare:
    """Read how to prepare interfaces.

    Raises:
        UsageError: there is no such way.
    """
    if text is None:
        return False
    if text == _ANY_WAY:
        return True
    for way in ("gro", "program"):
        if text == way:
            return "gro" if way == "gro" else "program"
    raise UsageError(
        f"prepare by {text!r}",
        cause=f"it is one of {', '.join(_WAYS)}",
        remedy="where neither is to be chosen, put --prepare behind the interfaces",
    )


def _adding(function: _F) -> _F:
    """Add the options of whatever adds ports."""
    for option in (
        click.option("--force", is_flag=True, help="Add interfaces that cannot be sent to, too."),
        click.option(
            "--prepare",
            metavar="[gro|program]",
            is_flag=False,
            flag_value=_ANY_WAY,
            callback=_prepare,
            help="Have the peer of a veth take redirected frames: by GRO, or by a program that"
            " passes them. It is undone when the port is removed.",
        ),
    ):
        function = option(function)
    return function


_interfaces = click.argument(
    "ifaces", metavar="IFACE...", nargs=-1, required=True, shell_complete=complete.interfaces
)
_table = click.argument("table_name", metavar="TABLE", shell_complete=complete.port_tables)
_tables = click.argument(
    "names", metavar="[TABLE]...", nargs=-1, shell_complete=complete.port_tables
)
_port = click.argument("port", metavar="PORT", shell_complete=complete.ports)
_ports = click.argument(
    "ports", metavar="PORT...", nargs=-1, required=True, shell_complete=complete.ports
)
_set = click.argument("set_name", metavar="SET", shell_complete=complete.port_sets)


@command.command(
    "create",
    examples="""
xdpkit ports create lan
xdpkit ports create lan eth1 eth2 eth3
xdpkit ports create lan veth1 veth2 --size 256 --prepare
""",
)
@click.argument("table_name", metavar="TABLE")
@click.argument("ifaces", metavar="[IFACE]...", nargs=-1, shell_complete=complete.interfaces)
@click.option(
    "--size",
    metavar="N",
    type=click.IntRange(1, 1024),
    default=64,
    show_default=True,
    help="Room for so many ports; it cannot be changed later.",
)
@_adding
@pin_root_option
@pass_settings
def create(
    settings: Settings,
    table_name: str,
    ifaces: tuple[str, ...],
    size: int,
    prepare: Prepare,
    force: bool,
    pin_root: str,
) -> None:
    """Create a port table, with interfaces as its first ports.

    They get the numbers from 0 on, in this order. If one of them cannot be added, no table is
    created.
    """
    from xdpkit.ports import PortTable

    with PortTable.create(table_name, size=size, pin_root=pin_root) as table:
        try:
            added = table.add_all(ifaces, netns=settings.netns, prepare=prepare, force=force)
        except BaseException:
            # Nobody can use it yet, and to look for users takes more than to make it.
            table.destroy(force=True)
            raise
        degraded = _degraded(table, added)
    if settings.json:
        _emit_ports(settings, table_name, added, size=size)
    else:
        emit([f"created {table_name}: room for {counted(size, 'port')}"])
        _show_ports(added, table_name)
    for text in degraded:
        message(text)


@command.command(
    "add",
    examples="""
xdpkit ports add lan eth4 eth5
xdpkit -n blue ports add lan veth0 --number 7 --name blue
xdpkit ports add lan veth1 --prepare=program
xdpkit ports add lan eth6 --egress egress.o --egress-program mark
""",
)
@_table
@_interfaces
@click.option(
    "--number",
    metavar="N",
    type=click.IntRange(min=0),
    help="The port's number; otherwise the next that is free.",
)
@click.option("--name", metavar="NAME", help="The port's name; otherwise the interface's.")
@click.option(
    "--egress",
    "object_path",
    metavar="OBJECT",
    type=click.Path(),
    help="An object file with a program (xdp/devmap) for all that is sent out of the port.",
)
@click.option(
    "--egress-program",
    "program_name",
    metavar="NAME",
    help="That program's name; needed where the object has several.",
)
@_adding
@pin_root_option
@pass_settings
def add(
    settings: Settings,
    table_name: str,
    ifaces: tuple[str, ...],
    number: int | None,
    name: str | None,
    object_path: str | None,
    program_name: str | None,
    prepare: Prepare,
    force: bool,
    pin_root: str,
) -> None:
    """Add interfaces to a port table.

    Each is looked at first: one that cannot be sent to is refused, with the reason. Either all of
    them are added, or none.
    """
    what = f"add {', '.join(ifaces)} to {table_name}"
    if len(ifaces) > 1 and (number is not None or name is not None):
        raise UsageError(what, cause="--number and --name are for one interface")
    if object_path is None and program_name is not None:
        raise UsageError(what, cause="--egress-program is for --egress OBJECT")
    egress = _egress(object_path, program_name, what) if object_path is not None else None
    from xdpkit.ports import PortTable

    with PortTable.open(table_name, pin_root=pin_root) as table:
        terms: Any = {
            "netns": settings.netns,
            "egress": egress,
            "prepare": prepare,
            "force": force,
        }
        if len(ifaces) == 1:
            added = [table.add(ifaces[0], number=number, name=name, **terms)]
        else:
            added = [*table.add_all(ifaces, **terms)]
        degraded = _degraded(table, added)
    if settings.json:
        _emit_ports(settings, table_name, added)
    else:
        _show_ports(added, table_name)
    for text in degraded:
        message(text)


def _egress(path: str, name: str | None, what: str) -> ProgramSpec:
    """Return the program that was asked for, or the only one that a devmap can have.

    Raises:
        UsageError: there is no such program, or several to choose from.
    """
    from xdpkit.obj import read

    found = read(path)
    fitting = {
        spec.name: spec
        for spec in found.programs.values()
        if spec.type == ProgType.XDP and spec.attach_type == AttachType.XDP_DEVMAP
    }
    if name is None and len(fitting) == 1:
        return next(iter(fitting.values()))
    if name in fitting:
        return fitting[name]
    if not fitting:
        raise UsageError(
            what,
            cause=f"{path} has no program for what is sent out of a port",
            remedy='such a program is in section "xdp/devmap"',
        )
    raise UsageError(
        what,
        cause=f"{path} has no program {name!r} for what is sent out of a port"
        if name is not None
        else f"{path} has {len(fitting)} programs to choose from",
        remedy=f"name one: --egress-program NAME, of {', '.join(fitting)}",
    )


def _degraded(table: PortTable, added: Sequence[Port]) -> list[str]:
    """Return what the ports that were added are not fit for, in sentences."""
    from xdpkit.interfaces import resolve
    from xdpkit.negotiation import Outcome, sentence
    from xdpkit.ports import negotiate

    others, found = _present(table), []
    for port in added:
        interface = port.interface
        if interface is None:
            continue
        # It may go meanwhile.
        with contextlib.suppress(UsageError):
            there = resolve(interface.ifindex, netns=interface.netns)
            for verdict in negotiate(there, others=others):
                if verdict.outcome is not Outcome.ACCEPTED:
                    remedy = f". Remedy: {verdict.remedy}" if verdict.remedy else ""
                    found.append(f"port {port.number} ({port.name}): {sentence(verdict)}{remedy}")
    return found


def _show_ports(ports: Sequence[Port], table_name: str) -> None:
    from xdpkit.cli.portlist import described

    emit(line for port in ports for line in described(port, table_name))


def _emit_ports(settings: Settings, table_name: str, ports: Sequence[Port], **more: object) -> None:
    from xdpkit.cli.portlist import port_to_dict

    data = {"table": table_name, **more, "ports": [port_to_dict(port) for port in ports]}
    emit_json(data, pretty=settings.pretty)


@command.command(
    "remove",
    examples="""
xdpkit ports remove lan eth4
xdpkit ports remove lan 4 5 --free
""",
)
@_table
@_ports
@click.option("--free", is_flag=True, help="Give up the number, too: the next port may get it.")
@pin_root_option
@pass_settings
def remove(
    settings: Settings, table_name: str, ports: tuple[str, ...], free: bool, pin_root: str
) -> None:
    """Take the interfaces of ports out of a port table.

    A port keeps its number and name, for an interface that is added by that number or name. With
    --free it does not.
    """
    from xdpkit.ports import PortTable

    with PortTable.open(table_name, pin_root=pin_root) as table:
        chosen = _chosen(table, ports, f"remove ports of {table_name}")
        notes = [note for port in chosen for note in table.remove(port.number, free=free)]
    for note in notes:
        message(note)
    if settings.json:
        numbers = [port.number for port in chosen]
        emit_json({"table": table_name, "removed": numbers, "free": free}, pretty=settings.pretty)
        return
    kept = "its number is free" if free else "its number is kept for it"
    emit(
        printable(f"removed port {port.number} ({port.name}) of {table_name}; {kept}")
        for port in chosen
    )


def _chosen(table: PortTable, wanted: Sequence[str], what: str) -> list[Port]:
    """Return ports by their numbers or names, each once.

    Raises:
        UsageError: there is none.
    """
    ports = {port.number: port for port in table.state().ports}
    found: dict[int, Port] = {}
    for text in wanted:
        port = ports.get(_key(text)) if text.isdecimal() else None
        port = port or next((each for each in ports.values() if each.name == text), None)
        if port is None:
            raise UsageError(
                what,
                cause=f"{table.name} has no port {text}",
                remedy=f"see: xdpkit ports show {table.name}",
            )
        found[port.number] = port
    return list(found.values())


def _key(text: str) -> int:
    # Python refuses to read numbers of thousands of digits; no port has one of ten.
    return int(text[-10:]) if len(text) <= 10 else -1


@command.command("rename", examples="xdpkit ports rename lan 3 uplink")
@_table
@_port
@click.argument("name", metavar="NAME")
@pin_root_option
@pass_settings
def rename(settings: Settings, table_name: str, port: str, name: str, pin_root: str) -> None:
    """Give a port another name. Its number stays, and so does the interface's name."""
    from xdpkit.ports import PortTable

    what = f"rename port {port} of {table_name}"
    if not name.isprintable():
        # In the error of whoever finds out later, it would be a line of its own.
        raise UsageError(what, cause=f"{printable(name)} is no name: a port's is printable")
    with PortTable.open(table_name, pin_root=pin_root) as table:
        (chosen,) = _chosen(table, [port], what)
        table.rename(chosen.number, name)
    if settings.json:
        data = {"table": table_name, "number": chosen.number, "name": name}
        emit_json(data, pretty=settings.pretty)
    else:
        emit([printable(f"port {chosen.number} of {table_name} is called {name} now")])


@command.command(
    "set",
    examples="""
xdpkit ports set lan guests 4 5 6
xdpkit ports set lan guests eth4
""",
)
@_table
@_set
@_ports
@pin_root_option
@pass_settings
def set_ports(
    settings: Settings, table_name: str, set_name: str, ports: tuple[str, ...], pin_root: str
) -> None:
    """Put ports together in a set, to which programs can redirect as a whole.

    A set that is there has these ports afterwards, and no others.
    """
    from xdpkit.ports import PortTable

    what = f"put ports of {table_name} in set {set_name}"
    if "-" in set_name:
        raise UsageError(
            what, cause="a program names a set in C (XDPKIT_PORT_SET), where no name has a '-'"
        )
    with PortTable.open(table_name, pin_root=pin_root) as table:
        chosen = _chosen(table, ports, what)
        numbers = sorted(port.number for port in chosen)
        table.set(set_name, numbers)
    if settings.json:
        data = {"table": table_name, "set": set_name, "ports": numbers}
        emit_json(data, pretty=settings.pretty)
    else:
        emit([f"set {set_name} of {table_name}: {', '.join(map(str, numbers))}"])


@command.command("unset", examples="xdpkit ports unset lan guests")
@_table
@_set
@pin_root_option
@pass_settings
def unset(settings: Settings, table_name: str, set_name: str, pin_root: str) -> None:
    """Remove a set of ports; the ports stay."""
    from xdpkit.ports import PortTable

    with PortTable.open(table_name, pin_root=pin_root) as table:
        table.unset(set_name)
    if settings.json:
        emit_json({"table": table_name, "unset": set_name}, pretty=settings.pretty)
    else:
        emit([printable(f"{table_name} has no set {set_name} any more")])


@command.command(
    "show",
    examples="""
xdpkit ports show
xdpkit ports show lan
xdpkit ports show lan -j | jq '.tables[].ports[] | select(.lost > 0)'
""",
)
@_tables
@pin_root_option
@pass_settings
def show(settings: Settings, names: tuple[str, ...], pin_root: str) -> None:
    """Show port tables: their ports, what went through them, and what was lost.

    Changes nothing. What was received and sent is what the kernel counts of the interface; what was
    lost are frames to the port, whoever sent them.
    """
    from xdpkit.cli.portlist import not_counted, overview
    from xdpkit.monitor.ports import port_counts

    _require_bpffs("show port tables", pin_root)
    report = port_counts(names or None, netns=settings.netns, pin_root=pin_root)
    if settings.json:
        emit_json(report.to_dict(), pretty=settings.pretty)
        return
    for at, table in enumerate(report.tables):
        emit([""] if at else [])
        emit(overview(table))
    note = not_counted(report.groups) if report.tables else "there is no port table"
    if note is not None:
        message(note)


@command.command("destroy", examples="xdpkit ports destroy lan")
@_table
@click.option("--force", is_flag=True, help="Also while programs use it, which then send nothing.")
@pin_root_option
@pass_settings
def destroy(settings: Settings, table_name: str, force: bool, pin_root: str) -> None:
    """Destroy a port table, and undo what was prepared for its ports.

    A table that loaded programs use is left as it is.
    """
    from xdpkit.ports import PortTable

    with PortTable.open(table_name, pin_root=pin_root) as table:
        notes = table.destroy(force=force)
    for note in notes:
        message(note)
    if settings.json:
        emit_json({"destroyed": table_name}, pretty=settings.pretty)
    else:
        emit([f"destroyed {table_name}"])


@command.command(
    "watch",
    examples="""
xdpkit ports watch
xdpkit ports watch lan -j
""",
)
@_tables
@pin_root_option
@pass_settings
def watch(settings: Settings, names: tuple[str, ...], pin_root: str) -> None:
    """Have port tables follow their interfaces, and say what changes, until Ctrl-C or SIGTERM.

    The kernel drops an interface that goes from all tables. When it comes back, it gets its port
    again at once while this runs, and by the next command of 'xdpkit ports' otherwise. Of several
    that watch one table, each says what it did itself.
    """
    from xdpkit import ports

    _require_bpffs("watch port tables", pin_root)
    with ports.watch(names or None, pin_root=pin_root) as watched, _stopping(watched.stop):
        for change in watched:
            if settings.json:
                emit_json(change.to_dict(), pretty=settings.pretty)
            else:
                emit([printable(str(change))])
            sys.stdout.flush()


@contextlib.contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function when Ctrl-C or SIGTERM comes; what is ignored stays ignored."""

    def tell(number: int, _: FrameType | None) -> None:
        stop()

    before = {
        number: signal.signal(number, tell)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@command.command(
    "check",
    examples="""
xdpkit ports check lan eth4
xdpkit -n blue ports check lan veth0 -j
""",
)
@_table
@click.argument("iface", metavar="IFACE", shell_complete=complete.interfaces)
@click.option(
    "--mode",
    type=click.Choice(["native", "generic", "skb"]),
    metavar="MODE",
    default="native",
    show_default=True,
    help="The mode of the programs that redirect: native, or generic (skb).",
)
@policy_option
@pin_root_option
@pass_settings
def check(
    settings: Settings, table_name: str, iface: str, mode: str, policy: str, pin_root: str
) -> None:
    """Say whether an interface can be a port of a table; nothing is changed.

    The exit status is 3 if it cannot.
    """
    from xdpkit import ports
    from xdpkit.interfaces import resolve
    from xdpkit.negotiation import Negotiation, Policy

    name = "generic" if mode == "skb" else mode
    interface = resolve(iface, netns=settings.netns)
    with ports.PortTable.open(table_name, pin_root=pin_root) as table:
        others = _present(table)
    verdicts = ports.negotiate(interface, mode=name, others=others, policy=policy)
    found = Negotiation(
        program="",
        device=interface.name,
        source="live",
        mode=name,
        policy=Policy(policy),
        verdicts=verdicts,
    )
    if settings.json:
        emit_json({"table": table_name, **found.to_dict()}, pretty=settings.pretty)
    else:
        from xdpkit.cli.verdicts import list_verdicts

        emit(list_verdicts(found))
    if not found.is_allowed:
        click.get_current_context().exit(RequirementUnmet.exit_code)


def _present(table: PortTable) -> list[Interface]:
    """Return the interfaces of a table's ports that are there."""
    from xdpkit.interfaces import resolve

    found = []
    for each in table.interfaces().values():
        # One may go meanwhile.
        with contextlib.suppress(UsageError):
            found.append(resolve(each.ifindex, netns=each.netns))
    return found
