# SPDX-License-Identifier: Apache-2.0
"""The demo's story, from the object file to the clean-up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from xdpkit.cli.command import Settings
from xdpkit.cli.demo import shipped
from xdpkit.cli.demo.bpffs import pin_root
from xdpkit.cli.demo.foreign import foreign_program
from xdpkit.cli.demo.interrupts import Interrupts
from xdpkit.cli.demo.network import QUEUES, Network, network
from xdpkit.cli.demo.teller import Teller
from xdpkit.cli.demo.traffic import Delivery, send, sending
from xdpkit.cli.doctor import SOMETHING_IS_WRONG
from xdpkit.cli.options import DEFAULT_PIN_ROOT
from xdpkit.cli.render import emit_json, message
from xdpkit.errors import HookBusy, UsageError, XdpkitError

BLOCKED, OPEN, HARMED = 7777, 8888, 9999
DATAGRAMS = 20


def tell(settings: Settings, *, pausing: bool) -> None:
    """Run the demo.

    Raises:
        XdpkitError: something did not work as it should; whatever was made is gone again.
    """
    folder = shipped.folder()
    try:
        with (
            Interrupts() as interrupts,
            contextlib.chdir(folder),
            pin_root() as root,
            network() as net,
            _detached_at_the_end(net, root),
            Teller(settings, interrupts, pausing=pausing) as teller,
        ):
            story = _Story(teller, interrupts, net, root)
            for part in (
                story.introduce,
                lambda: story.inspect(folder),
                story.attach,
                story.send_traffic,
                story.read_counters,
                story.replace,
                story.count,
                story.give_a_queue_its_own,
                story.be_refused,
                story.detach,
                story.see_what_goes_wrong,
                story.leave_alone,
            ):
                part()
            interrupts.checkpoint()
    except (KeyboardInterrupt, SystemExit):
        message("interrupted; the demo's namespaces are gone again")
        raise
    if settings.json:
        emit_json({"ran": True, "steps": teller.steps}, pretty=settings.pretty)
    else:
        teller.say()
        teller.say("That was all. The namespaces are gone again, and all that was in them.")


@contextlib.contextmanager
def _detached_at_the_end(net: Network, root: str) -> Iterator[None]:
    """Take the programs off at the end, however it comes: what is pinned would stay."""
    from xdpkit.hook import Hook

    try:
        yield
    finally:
        hook = Hook(net.server.interface, netns=net.server.netns, pin_root=root)
        for undo in (hook.counters.disable, hook.clear):
            with contextlib.suppress(UsageError, HookBusy):
                undo()


@dataclass(frozen=True, slots=True)
class _Story:
    teller: Teller
    interrupts: Interrupts
    net: Network
    root: str

    def introduce(self) -> None:
        client, server = self.net.client, self.net.server
        say = self.teller.say
        say("A firewall for one UDP port, in the place where the kernel receives packets.")
        say()
        say(f"Two network namespaces, joined by a veth pair with {QUEUES} queues, are made for it:")
        say()
        say(f"    {client.netns:<32}{server.netns}")
        ends = f"{client.interface} {client.address}  ───────▶  "
        say(f"    {ends:<32}{server.interface} {server.address}")
        say(f"    {'sends UDP datagrams':<32}has the firewall")
        if self.root != DEFAULT_PIN_ROOT:
            say()
            self.teller.explain(
                f"No BPF file system is mounted at {DEFAULT_PIN_ROOT}, so the demo has mounted one"
                f" of its own at {self.root}: that is where attached programs are pinned."
            )

    def inspect(self, folder: str) -> None:
        self.teller.step(
            "Look into the object file",
            "It is compiled from bpf/demo.c, drops UDP datagrams to blocked_port, and counts what"
            " it did with every packet: in hits by action, in queues by RX queue.",
        )
        self.teller.show_folder(folder)
        self._command("inspect", shipped.FIREWALL)

    def attach(self) -> None:
        self.teller.step(
            "Put it on the interface",
            f"The variable is set before the load, so that port {BLOCKED} is blocked. The program "
            "then stays on the interface, without any process to hold it.",
        )
        self._command(
            *self._in_server("attach"),
            self.net.server.interface,
            shipped.FIREWALL,
            "--set",
            f"blocked_port={BLOCKED}",
        )
        self.teller.say()
        self._command(*self._in_server("status"))

    def send_traffic(self) -> None:
        self.teller.step(
            "Send it traffic",
            f"{DATAGRAMS} datagrams to port {BLOCKED} and {DATAGRAMS} to port {OPEN}, from ordinary"
            " sockets; at the other end a socket listens at each port.",
        )
        self._send({BLOCKED: 0, OPEN: DATAGRAMS})

    def read_counters(self) -> None:
        python = self.teller.python
        self.teller.step(
            "Read what it counted",
            "Maps are found by name, and what is in them has the types that the C source says. "
            "Per-CPU maps have one value for each CPU.",
        )
        python("import xdpkit")
        python(f"first = xdpkit.Hook({self._hook}).open()")
        python('hits, queues = first.maps["hits"], first.maps["queues"]')
        dropped = python("sum(hits[xdpkit.XdpAction.DROP])")
        python("sum(hits[xdpkit.XdpAction.PASS])")
        python("queues[0]")
        python(f'[sum(cpu["dropped"] for cpu in queues[number]) for number in range({QUEUES})]')
        if dropped != DATAGRAMS:
            raise _surprise(f"the program counted {dropped} dropped packets, not {DATAGRAMS}")

    def replace(self) -> None:
        python = self.teller.python
        self.teller.step(
            "Replace it while packets arrive",
            "By a fresh copy of itself, in one step: each packet meets the old program or the new"
            " one. Datagrams keep coming to both ports meanwhile. Not one slips through the"
            " firewall, not one is lost; and what the two have dropped makes up what was sent to"
            " the blocked port, here and in step 3.",
        )
        with sending(self.net, {BLOCKED: False, OPEN: True}, self.interrupts) as deliveries:
            self._command(
                *self._in_server("replace"),
                self.net.server.interface,
                shipped.FIREWALL,
                "--set",
                f"blocked_port={BLOCKED}",
            )
        self.teller.say()
        blocked, passed = deliveries
        self._show(deliveries, {BLOCKED: 0, OPEN: passed.sent})
        self.teller.say()
        python(f"second = xdpkit.Hook({self._hook}).open()")
        dropped = python('sum(hits[1]) + sum(second.maps["hits"][1])  # 1 is XDP_DROP')
        if dropped != DATAGRAMS + blocked.sent:
            raise _surprise(f"{dropped} were dropped in all, not {DATAGRAMS + blocked.sent}")

    def count(self) -> None:
        self.teller.step(
            "Count what it returns",
            "Any program can be made to, without its author's doing: a copy that counts takes its"
            " place while packets arrive. That stays so for the interface until it is ended.",
        )
        interface = self.net.server.interface
        self._command(*self._in_server("counters", "enable"), interface, "--bytes")
        self.teller.say()
        self._send({BLOCKED: 0, OPEN: DATAGRAMS})
        self.teller.say()
        self._command(*self._in_server("counters", "show"), interface)
        self.teller.say()
        read = f"xdpkit.Hook({self._hook}).counters.read()"
        dropped = self.teller.python(f"{read}.programs[0].total.packets[xdpkit.XdpAction.DROP]")
        if dropped != DATAGRAMS:
            raise _surprise(f"the copy counted {dropped} dropped packets, not {DATAGRAMS}")
        self.teller.say()
        self._command(*self._in_server("counters", "disable"), interface)

    def give_a_queue_its_own(self) -> None:
        self.teller.step(
            "Give an RX queue a program of its own",
            "To try a new version on one queue, say. The other queues keep the program that they"
            " have; when the queue's own goes, it is served like them again. No packet is missed.",
        )
        interface, queue = self.net.server.interface, ("--queue", "1")
        self._command(
            *self._in_server("attach"),
            interface,
            shipped.FIREWALL,
            *queue,
            "--set",
            "blocked_port=53",
        )
        self.teller.say()
        self._command(*self._in_server("status"))
        self.teller.say()
        self._command(*self._in_server("detach"), interface, *queue)

    def be_refused(self) -> None:
        self.teller.step(
            "Be refused",
            "A program that is there is not pushed aside by another. A refusal says what "
            "was tried, why it failed, and what to do:",
        )
        status = self._command(*self._in_server("attach"), self.net.server.interface, shipped.PASS)
        if status != HookBusy.exit_code:
            raise _surprise(f"the exit status was {status}, not {HookBusy.exit_code}")
        self.teller.say(f"(exit status {status}: another program is there)")

    def detach(self) -> None:
        self.teller.step(
            "Take it off", "As the remedy said; after that the blocked port is open again."
        )
        self._command(*self._in_server("detach"), self.net.server.interface)
        self.teller.say()
        self._send({BLOCKED: DATAGRAMS})

    def see_what_goes_wrong(self) -> None:
        self.teller.step(
            "See what goes wrong",
            f"bpf/faulty.c has a mistake: for datagrams to port {HARMED} it returns 42, which is no"
            " action, so the kernel drops them. That is told before it is attached. Counters then"
            " have each of them, and a few are shown as they happen: never more than --rate allows,"
            " so nobody can keep the machine busy by sending such datagrams.",
        )
        interface = self.net.server.interface
        self._command(
            *self._in_server("attach"),
            interface,
            shipped.FAULTY,
            "--set",
            f"harmed_port={HARMED}",
        )
        self.teller.say()
        self._command(*self._in_server("counters", "enable"), interface)
        self.teller.say()
        with sending(self.net, {HARMED: False}, self.interrupts) as deliveries:
            self._command(*self._in_server("events"), interface, "--count", "3")
        self.teller.say()
        self._show(deliveries, {HARMED: 0})
        self.teller.say()
        status = self._command(*self._in_server("doctor"), interface)
        if status != SOMETHING_IS_WRONG:
            raise _surprise(f"the exit status was {status}, not {SOMETHING_IS_WRONG}")
        self.teller.say(f"(exit status {status}: something is wrong)")
        self.teller.say()
        self._command(*self._in_server("detach"), interface)

    def leave_alone(self) -> None:
        self.teller.step(
            "Leave other tools' programs alone",
            "They are shown, and neither replaced nor detached unless somebody names them. (The"
            " demo plays the other tool.)",
        )
        with foreign_program(self.net.server):
            self._command(*self._in_server("status"))
            self.teller.say()
            status = self._command(
                *self._in_server("replace"), self.net.server.interface, shipped.FIREWALL
            )
        if status != HookBusy.exit_code:
            raise _surprise(f"the exit status was {status}, not {HookBusy.exit_code}")

    @property
    def _hook(self) -> str:
        """The arguments that name the server's hook in Python."""
        text = f'"{self.net.server.interface}", netns="{self.net.server.netns}"'
        return f'{text}, pin_root="{self.root}"' if self.root != DEFAULT_PIN_ROOT else text

    def _in_server(self, *command: str) -> list[str]:
        """Return a command's name with its options for the server's namespace."""
        options = ["-n", self.net.server.netns]
        if self.root != DEFAULT_PIN_ROOT:
            options += ["--pin-root", self.root]
        return [*command, *options]

    def _command(self, *args: str) -> int:
        return self.teller.command(args)

    def _send(self, expected: dict[int, int]) -> None:
        self._show(send(self.net, DATAGRAMS, expected, self.interrupts), expected)

    def _show(self, deliveries: list[Delivery], expected: dict[int, int]) -> None:
        self.teller.traffic(deliveries)
        for delivery in deliveries:
            if delivery.received != expected[delivery.port]:
                raise _surprise(
                    f"{delivery.received} of {delivery.sent} datagrams to port {delivery.port}"
                    f" arrived, not {expected[delivery.port]}"
                )


def _surprise(cause: str) -> XdpkitError:
    return XdpkitError("show the firewall at work", cause=cause)
