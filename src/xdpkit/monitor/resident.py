# SPDX-License-Identifier: Apache-2.0
"""The programs that stay in the kernel and count what goes wrong (``bpf/monitor.c``).

They are kept by pins in ``<bpffs>/xdpkit/monitor/``: a link for each tracepoint, and the maps. They
are made in a folder of another name, which is renamed when it is complete; what is left of it when
a command is killed, the next one removes.

All XDP programs of the machine are counted, in each network namespace. A packet that goes well
costs nothing: these tracepoints are not passed then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.hook.cleaning import Cleaned
from xdpkit.hook.pins import Pins
from xdpkit.hook.settings import are_hidden
from xdpkit.kernel import Link, Map, Program, attach_tracepoint, shipped
from xdpkit.kernel.folder import BY_NAME, DEFAULT_ROOT
from xdpkit.monitor import layout
from xdpkit.monitor.model import Group, Installed
from xdpkit.monitor.tracepoints import Form, present
from xdpkit.syscalls import netns, privilege
from xdpkit.uapi.capability import Capability

if TYPE_CHECKING:
    from xdpkit.obj import Object

DEFAULT_RATE = 100
MAX_RATE = 1_000

_OBJECT = "monitor.o"
_HOME = "monitor"
_UNFINISHED = "monitor-unfinished"
_LINK = "on-"
_OTHER = b"other"  # attachments that were refused in too many ways
_CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h; advances with each of the kernel's ticks

_MAPS = {
    "errors": "xdpkit_errors",
    "names": "xdpkit_names",
    "bulks": "xdpkit_bulks",
    "cpumaps": "xdpkit_cpumaps",
    "refused": "xdpkit_refused",
    "settings": ".data",
}
"""Pins of maps, and the maps' names in the object."""


@dataclass(frozen=True, slots=True)
class _Counter(Form):
    """A program that counts.

    Attributes:
        group: what it is for.
    """

    group: Group = Group.ERRORS


_COUNTERS = (
    _Counter("xdp_exception", "xdp_exception", 3),
    _Counter("xdp_redirect_err", "xdp_redirect_err", 7, target=True),
    _Counter("err_no_target", "xdp_redirect_err", 7, target=False),
    _Counter("err_5_6", "xdp_redirect_err", 6),
    _Counter("attach_failed", "bpf_xdp_link_attach_failed", 1),
    _Counter("xdp_devmap_xmit", "xdp_devmap_xmit", 5, group=Group.TRANSMIT),
    _Counter("xdp_bulk_tx", "xdp_bulk_tx", 4, group=Group.TRANSMIT),
    _Counter("xdp_cpumap_enqueue", "xdp_cpumap_enqueue", 4, group=Group.TRANSMIT),
    _Counter("xdp_cpumap_kthread", "xdp_cpumap_kthread", 5, group=Group.TRANSMIT),
)
_NAMES = frozenset(each.program for each in _COUNTERS)


@dataclass(frozen=True, slots=True)
class Counted:
    """The tables of the resident programs, decoded; ids and numbers are not resolved.

    Attributes:
        installed: the programs. by_cookie: whether namespaces are told by their cookies.
        errors, bulks, cpumaps: see :mod:`xdpkit.monitor.layout`.
        attach_failures, other, missed: see :class:`~xdpkit.monitor.model.Tracepoints`.
    """

    installed: Installed
    by_cookie: bool
    errors: tuple[layout.Error, ...]
    bulks: tuple[layout.Bulk, ...]
    cpumaps: tuple[layout.Cpumap, ...]
    attach_failures: Mapping[str, int]
    other: int
    missed: int


def install(
    *, transmit: bool = False, rate: int = DEFAULT_RATE, pin_root: str = DEFAULT_ROOT
) -> Installed:
    """Count what goes wrong, from now on and until :func:`remove` or a reboot.

    What is installed already stays and goes on counting; what it is to count, and the rate, are set
    anew.

    Args:
        transmit: count all transmissions of redirected frames, too, lost or not.
        rate: how often a second the time of each kind of error is noted, on each CPU; beyond that
            they are only counted. 0: that of the first one only.
        pin_root: the bpffs for the pins.

    Raises:
        UsageError: the rate makes no sense.
        RequirementUnmet: the kernel has no types or not this kind of program; pins are impossible;
            or another version of xdpkit has installed its own.
        HookBusy: another process holds the lock for long.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused.
    """
    what = "install the resident counters"
    if type(rate) is not int or not 0 <= rate <= MAX_RATE:
        raise UsageError(
            what, cause=f"the rate has to be a whole number from 0 to {MAX_RATE:,}, not {rate!r}"
        )
    privilege.require(what, (Capability.SYS_ADMIN,))
    pins = Pins(pin_root)
    note = pins.require_lasting(what, alternative=False)
    wanted = {
        counter.program
        for counter in _COUNTERS
        if (transmit or counter.group is Group.ERRORS) and counter.suits()
    }
    with pins.locked(what, create=True):
        home = _Home(pins.folder)
        home.discard_unfinished()
        _require_gone(home)
        if home.exists:
            _change(home, wanted, rate)
        else:
            _make(home, wanted, rate)
        return replace(_look(home), notes=(note,) if note is not None else ())


def remove(*, pin_root: str = DEFAULT_ROOT) -> bool:
    """Count no longer, and forget what was counted; return whether anything was installed.

    Raises:
        RequirementUnmet: somebody else made the folder of pins.
        HookBusy: another process holds the lock for long.
        MissingPrivilege: only root may.
    """
    what = "remove the resident counters"
    pins = Pins(pin_root)
    _require_visible(pins, what)
    with pins.locked(what, create=False) as has_pins:
        if not has_pins:
            return False
        home = _Home(pins.folder)
        home.discard_unfinished()
        found = home.exists
        home.discard()
        return found


def clean(
    *, everything: bool = False, pin_root: str = DEFAULT_ROOT, dry_run: bool = False
) -> tuple[Cleaned, ...]:
    """Remove what a killed command left half made.

    Args:
        everything: remove the resident programs, too.
        pin_root: the bpffs with the pins.
        dry_run: only tell.

    Raises:
        RequirementUnmet, HookBusy, MissingPrivilege: as :func:`remove`.
    """
    pins = Pins(pin_root)
    results = []
    with pins.locked("clean up", create=False) as has_pins:
        home = _Home(pins.folder)
        if has_pins and home.has_unfinished:
            what = "what a killed command left of the resident counters"
            results.append(Cleaned(what, home.unfinished))
        if has_pins and home.exists and everything:
            results.append(Cleaned("the resident counters of errors", home.path))
        if results and not dry_run:
            home.discard_unfinished()
            if everything:
                home.discard()
    return tuple(results)


def installed(*, pin_root: str = DEFAULT_ROOT) -> Installed | None:
    """Return what is installed, None if nothing is.

    Raises:
        RequirementUnmet: another version of xdpkit has installed its own; the pins are hidden, as
            by ip netns exec; somebody else made the folder of pins.
        MissingPrivilege: only root may look.
    """
    home = _trusted(pin_root, "look at the resident counters")
    if home is None:
        return None
    try:
        return _look(home)
    except UsageError:
        _require_gone(home)
        return None


def read(*, pin_root: str = DEFAULT_ROOT) -> Counted | None:
    """Return what has been counted, None if nothing is installed.

    Raises:
        RequirementUnmet, MissingPrivilege: as :func:`installed`.
        ObjectFormatError: the tables contradict themselves.
    """
    what = "read the resident counters"
    home = _trusted(pin_root, what)
    if home is None:
        return None
    privilege.require(what, (Capability.SYS_ADMIN,))
    try:
        found = _look(home)
        values = {
            pin: home.value(pin) for pin in ("errors", "names", "bulks", "cpumaps", "settings")
        }
        with home.map("refused") as refused:
            failures = {
                key.split(b"\0", 1)[0].decode("utf-8", "backslashreplace"): int.from_bytes(
                    value, sys.byteorder
                )
                for key, value in refused.items()
                if any(value)
            }
        missed = sum(_missed(number) for number in found.program_ids)
    except UsageError:
        _require_gone(home)
        return None
    return Counted(
        found,
        layout.Settings.decode(values["settings"][0]).by_cookie,
        layout.errors(values["errors"], values["names"]),
        layout.bulks(values["bulks"]),
        layout.cpumaps(values["cpumaps"]),
        failures,
        layout.others(values["errors"], values["bulks"], values["cpumaps"]),
        missed,
    )


class _Home:
    """The folder of the pins."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/{_HOME}"
        self.unfinished = f"{folder}/{_UNFINISHED}"

    @property
    def exists(self) -> bool:
        return os.path.isdir(self.path)

    @property
    def is_incomplete(self) -> bool:
        """Whether it is there, without all of its maps."""
        try:
            return not _MAPS.keys() <= set(os.listdir(self.path))
        except FileNotFoundError:
            return False

    @property
    def has_unfinished(self) -> bool:
        return os.path.isdir(self.unfinished)

    def programs(self) -> frozenset[str]:
        """The programs that are attached, by their names in the object."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return frozenset()
        found = (name.removeprefix(_LINK) for name in names if name.startswith(_LINK))
        return frozenset(name for name in found if name in _NAMES)

    def link(self, program: str) -> Link:
        """Open a program's link.

        Raises:
            UsageError: it is not there.
        """
        return Link.from_pin(self.path_of_link(program))

    def path_of_link(self, program: str) -> str:
        return f"{self.path}/{_LINK}{program}"

    def map(self, pin: str) -> Map:
        """Open a map.

        Raises:
            UsageError: it is not there.
        """
        return Map.from_pin(f"{self.path}/{pin}").untyped()

    def value(self, pin: str) -> list[bytes]:
        """Return the only value of a map, as each CPU has it."""
        with self.map(pin) as found:
            value = found[0]
        return value if isinstance(value, list) else [value]

    @contextlib.contextmanager
    def made(self) -> Iterator[str]:
        """Yield a new folder to pin in; it is this one when the block has gone well."""
        os.mkdir(self.unfinished, 0o700)
        try:
            yield self.unfinished
            os.rename(self.unfinished, self.path)
        except BaseException:
            self.discard_unfinished()
            raise

    def discard_unfinished(self) -> None:
        _discard(self.unfinished)

    def discard(self) -> None:
        """Remove it, in one step as far as anybody sees."""
        if self.exists:
            os.rename(self.path, self.unfinished)
            self.discard_unfinished()


def _discard(folder: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        # The links first: what counts no more can be forgotten.
        for name in sorted(os.listdir(folder), key=lambda name: not name.startswith(_LINK)):
            try:
                os.unlink(f"{folder}/{name}")
            except IsADirectoryError as error:
                raise RequirementUnmet(
                    "remove the resident counters",
                    cause=f"{folder}/{name} is a folder, which is not of xdpkit's making",
                    remedy=f"see what is in it, then remove it: rm -r {shlex.quote(folder)}",
                ) from error
        os.rmdir(folder)


def _make(home: _Home, wanted: set[str], rate: int) -> None:
    from xdpkit.kernel import load_all

    with load_all(_object(rate), programs=wanted) as loaded, home.made() as folder:
        refused = loaded.maps[_MAPS["refused"]].untyped()
        refused[_OTHER.ljust(refused.key_size, b"\0")] = bytes(refused.value_size)
        for pin, name in _MAPS.items():
            loaded.maps[name].pin(f"{folder}/{pin}")
        for name, program in loaded.programs.items():
            with attach_tracepoint(program) as link:
                link.pin(f"{folder}/{_LINK}{name}")


def _change(home: _Home, wanted: set[str], rate: int) -> None:
    """Have what is installed count this."""
    from xdpkit.kernel import load_all

    settings = _require_known(home)
    there = home.programs()
    with home.map("settings") as kept:
        kept[0] = replace(settings, rate=rate, ticks=_ticks_between(rate)).encode()
    for name in there - wanted:
        os.unlink(home.path_of_link(name))
    missing = wanted - there
    if not missing:
        return
    with ExitStack() as during:
        maps = {name: during.enter_context(home.map(pin)) for pin, name in _MAPS.items()}
        loaded = during.enter_context(load_all(_object(rate), programs=missing, maps=maps))
        for name, program in loaded.programs.items():
            with attach_tracepoint(program) as link:
                link.pin(home.path_of_link(name))


def _object(rate: int) -> Object:
    from xdpkit.obj import read as read_object

    obj = read_object(shipped.path(_OBJECT))
    obj.variables["settings"] = layout.Settings(
        layout.LAYOUT,
        rate,
        _ticks_between(rate),
        secrets.randbits(32),
        netns.has_cookies(),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ).encode()
    return obj


def _ticks_between(rate: int) -> int:
    """Return how many of the kernel's ticks are between two times that are noted."""
    ticks_per_second = round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))
    return max(1, ticks_per_second // rate) if rate else 0xFFFFFFFF


def _look(home: _Home) -> Installed:
    settings = _require_known(home)
    programs = home.programs()
    counters = [counter for counter in _COUNTERS if counter.program in programs]
    numbers = []
    for counter in counters:
        # One may be going just now.
        with contextlib.suppress(UsageError), home.link(counter.program) as link:
            numbers.append(link.info().program_id)
    return Installed(
        groups=frozenset(counter.group for counter in counters),
        tracepoints=tuple(counter.tracepoint for counter in counters),
        absent=tuple(
            name
            for name in dict.fromkeys(counter.tracepoint for counter in _COUNTERS)
            if not present(name)
        ),
        rate=settings.rate,
        slots=2 * layout.SLOTS,
        since=settings.since,
        program_ids=tuple(numbers),
    )


def _require_known(home: _Home) -> layout.Settings:
    """Return the settings of what is installed, if it is what this version installs.

    Raises:
        RequirementUnmet: it is another version's.
        UsageError: it was removed meanwhile.
    """
    fits = True
    for pin, size in layout.SIZES.items():
        with home.map(pin) as found:
            fits = fits and found.info().value_size == size
    settings = layout.Settings.decode(home.value("settings")[0]) if fits else None
    if settings is None or settings.layout != layout.LAYOUT:
        raise RequirementUnmet(
            "understand the resident counters",
            cause=f"another version of xdpkit has installed them ({home.path})",
            remedy="xdpkit monitor remove, then install them again",
        )
    return settings


def _require_gone(home: _Home) -> None:
    """Refuse a folder without all pins, unless it was removed meanwhile.

    Raises:
        RequirementUnmet: it is still there.
    """
    if home.is_incomplete:
        raise RequirementUnmet(
            "look at the resident counters",
            cause=f"{home.path} lacks some of their pins",
            remedy="xdpkit monitor remove, then install them again",
        )


def _trusted(pin_root: str, what: str) -> _Home | None:
    pins = Pins(pin_root)
    _require_visible(pins, what)
    folder = pins.open_folder(what)
    if folder is None:
        return None
    with folder:
        home = _Home(pins.folder)
        return home if home.exists else None


def _require_visible(pins: Pins, what: str) -> None:
    if are_hidden(pins):
        raise RequirementUnmet(
            what,
            cause=f"{pins.root}, which has the pins of the resident counters, is hidden here, as by"
            " ip netns exec",
            remedy=BY_NAME,
        )


def _missed(number: int) -> int:
    with contextlib.suppress(UsageError), Program.from_id(number) as program:
        return program.info().recursion_misses
    return 0
