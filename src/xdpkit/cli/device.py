# SPDX-License-Identifier: Apache-2.0
"""``xdpkit device``."""

from __future__ import annotations

from collections.abc import Iterator

from xdpkit.capabilities import Device
from xdpkit.cli.command import Settings, pass_settings, subcommand
from xdpkit.cli.options import interface_argument, mode_option
from xdpkit.cli.render import Column, emit, emit_json, printable, table, width


@subcommand(
    "device",
    examples="""
xdpkit device eth0
xdpkit device eth0 --mode generic
xdpkit device eth0 -p > eth0.json && xdpkit check fw.o --profile eth0.json
""",
)
@interface_argument()
@mode_option
@pass_settings
def command(settings: Settings, iface: str, mode: str) -> None:
    """Show what an interface offers to XDP programs, with the evidence.

    What could not be asked is 'unknown', never 'no'. The JSON is a profile: 'xdpkit check' takes it
    where the interface is not.
    """
    from xdpkit.hook import Mode
    from xdpkit.interfaces import device_of

    device = device_of(iface, mode=Mode.parse(mode).value, netns=settings.netns)
    if settings.json:
        emit_json(device.to_dict(), pretty=settings.pretty)
    else:
        emit(_lines(device))


def _lines(device: Device) -> Iterator[str]:
    facts = [
        f"driver {device.driver}" if device.driver else "no driver name",
        f"Linux {device.kernel}" if device.kernel else "",
        f"MTU {device.mtu}",
        f"queues {device.rx_queues} RX, {device.tx_queues} TX",
    ]
    yield printable(f"{device.name}  {device.mode}  {', '.join(fact for fact in facts if fact)}")
    yield ""
    yield from table(
        [
            Column("offers"),
            Column("answer"),
            Column("limit", right=True),
            Column("evidence", wraps=True),
        ],
        [
            [
                found.capability,
                found.answer.value,
                f"{found.limit}" if found.limit is not None else "",
                found.evidence,
            ]
            for found in device.findings.values()
        ],
        width=width(),
        indent="  ",
    )
    if device.preconditions:
        yield ""
        yield from table(
            [Column("to attach"), Column("met"), Column("for"), Column("evidence", wraps=True)],
            [
                [
                    condition.name,
                    condition.answer.value,
                    f"programs without {condition.waived_by}" if condition.waived_by else "",
                    condition.evidence,
                ]
                for condition in device.preconditions
                if device.mode in condition.modes
            ],
            width=width(),
            indent="  ",
        )
