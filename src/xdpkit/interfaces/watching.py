# SPDX-License-Identifier: Apache-2.0
"""New findings about an interface as soon as the kernel announces a change."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

from xdpkit.capabilities import Device
from xdpkit.errors import KernelRefused, UsageError
from xdpkit.interfaces.device import device_of
from xdpkit.interfaces.interface import resolve
from xdpkit.syscalls import netdev, netns
from xdpkit.syscalls.closing import Closing
from xdpkit.syscalls.fd import Fd
from xdpkit.syscalls.netlink import NetlinkSocket
from xdpkit.uapi.if_link import RTNLGRP_LINK
from xdpkit.uapi.netdev import NETDEV_MCGRP_MGMT
from xdpkit.uapi.netlink import NetlinkProtocol


class Watch(Closing):
    """An interface's findings, kept up to date.

    ::

        with interfaces.watch("veth0") as watched:
            for device in watched:                  # each time that the findings are others
                print(device.findings["redirect-target"])

    The kernel announces changes of features (a veth's peer gains a program, or GRO), of MTU and
    state, and that an interface goes. It does not announce that a program is attached to an empty
    hook by a bpf_link, unless that changes features.

    A context manager. :meth:`stop` may be called by another thread, and by a signal handler; the
    rest belongs to one thread.

    Attributes:
        device: the findings as they were last seen.
    """

    def __init__(self, iface: str | int, *, mode: str | None = None, netns: str | None = None):
        """Begin to watch; see :func:`xdpkit.interfaces.device_of` for arguments and errors."""
        self._mode, self._netns = mode, netns
        self._index = resolve(iface, netns=netns).index
        self._wake = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._sockets: list[NetlinkSocket] = []
        try:
            # What happens from here on is announced, so nothing gets lost before the first look.
            self._join()
            self.device = device_of(self._index, mode=mode, netns=netns)
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        with netns.entered(self._netns):
            links = NetlinkSocket()
            self._sockets.append(links)
            links.join(RTNLGRP_LINK)
            links.hear_other_namespaces()
            features = NetlinkSocket(NetlinkProtocol.GENERIC)
            self._sockets.append(features)
            # Before Linux 6.3 there is no family, and nothing to hear from it.
            family = netdev.find_family(features)
            if family is not None and NETDEV_MCGRP_MGMT in family.groups:
                features.join(family.groups[NETDEV_MCGRP_MGMT])

    def __iter__(self) -> Iterator[Device]:
        """Yield the device each time its findings change, until it goes or :meth:`stop`."""
        while (device := self.wait()) is not None:
            yield device

    def wait(self, timeout: float | None = None) -> Device | None:
        """Return the device as soon as its findings are others.

        Args:
            timeout: seconds after which to give up; None: never.

        Returns:
            None at the end of the time, after :meth:`stop`, and when the interface has gone.
        """
        poll = select.poll()
        for descriptor in (self._wake.fileno(), *(each.fileno() for each in self._sockets)):
            poll.register(descriptor, select.POLLIN)
        end = time.monotonic() + timeout if timeout is not None else None
        while True:
            left = max(end - time.monotonic(), 0) * 1000 if end is not None else None
            ready = [descriptor for descriptor, _ in poll.poll(left)]
            if not ready or self._wake.fileno() in ready:
                return None
            if not self._heard():
                continue
            try:
                device = device_of(self._index, mode=self._mode, netns=self._netns)
            except (UsageError, KernelRefused):
                self.stop()
                return None
            if device != self.device:
                self.device = device
                return device

    def _heard(self) -> bool:
        """Return whether anything was announced that may change the findings."""
        matters = False
        for each in self._sockets:
            messages = each.notifications()
            matters = matters or messages is None or bool(messages)
        return matters

    def stop(self) -> None:
        """End :meth:`wait` and the iteration, now and for good."""
        os.eventfd_write(self._wake.fileno(), 1)

    def close(self) -> None:
        """Close the sockets; safe to repeat."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        self._wake.close()


def watch(iface: str | int, *, mode: str | None = None, netns: str | None = None) -> Watch:
    """Watch an interface, see :class:`Watch`.

    Raises:
        UsageError: there is no such interface or namespace, or no such mode.
        MissingPrivilege: entering another namespace takes CAP_SYS_ADMIN.
    """
    return Watch(iface, mode=mode, netns=netns)
