# SPDX-License-Identifier: Apache-2.0
"""Why the kernel refused a program: its text, else its errno, put into plain words.

Pure: what the caller knows comes in, words come out. A cause that depends on who is on the hook is
found by looking at the hook, not here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from xdpkit.capabilities import Answer, Kernel
from xdpkit.errors import errno_name
from xdpkit.hook import catalogue
from xdpkit.hook.catalogue import Cause, Refusal
from xdpkit.hook.mode import Mode, Via
from xdpkit.interfaces import Interface, table
from xdpkit.syscalls.netns import nsenter

if TYPE_CHECKING:
    from xdpkit.interfaces.observation import Observation

UNKNOWN = "cause unknown"

_GENERIC = (
    "attach in generic mode (--mode generic, mode=Mode.GENERIC), at the cost of an skb per packet"
)
# No driver with XDP refuses an ordinary Ethernet MTU.
_ETH_DATA_LEN = 1500

# Drivers that hand the program on to devices below, whose refusals are then theirs.
_STACKED = ("bonding", "hv_netvsc")

# Causes that need more than the errno: a program that is bound, an MTU that is large.
_OF_BOUND_PROGRAMS = ("bound-elsewhere", "bound-in-generic", "loaded-for-nic")
_OF_LARGE_MTUS = ("mtu", "mtu-without-frags", "mtu-header-split")

# By the names that ethtool -K takes.
_LRO, _GRO_HW = "rx-lro", "rx-gro-hw"

_ATTACH = "attach"

_Words = dict[str, str | int]


class Explanation(NamedTuple):
    """Why a refusal, and what certainly helps.

    Attributes:
        cause: in plain words; it begins with "cause unknown" if it is.
        remedy: None where none is sure.
    """

    cause: str
    remedy: str | None


def explain(
    number: int,
    said: str | None,
    interface: Interface,
    mode: Mode,
    verb: str = _ATTACH,
    *,
    via: Via | None = None,
    heard: bool = False,
    seen: Observation | None = None,
    removal: str | None = None,
    is_bound: bool | None = None,
) -> Explanation:
    """Put a refusal into words.

    Args:
        number: the errno, positive.
        said: the kernel's text (extack); None: there was none, or nobody could listen.
        interface: the interface. mode: the mode that was asked for.
        verb: what was tried: "attach", "replace" (by LINK_UPDATE, or by netlink with
            ``XDP_FLAGS_REPLACE``) or "detach".
        via: by which way; None: by either.
        heard: whether a text would have been heard; netlink gives it by itself.
        seen: the interface looked at, for the numbers and names in a remedy.
        removal: the command that takes off what is on the hook, where there is one.
        is_bound: whether the program is bound to a device; None: not known.
    """
    kernel = seen.kernel if seen is not None else None
    listed = table.find(interface.driver or interface.kind, kernel or Kernel.parse(""))
    driver = listed.name if listed is not None else interface.driver
    words = {**_of_interface(interface, mode), **_of_mtu(interface.mtu, None)}
    words |= _of_configuration(seen) if seen is not None else {"merging": f"{_LRO} off"}
    if listed is not None and seen is not None:
        words |= _of_driver(listed, seen)
    if removal is not None:
        words["removal"] = removal
    if mode is Mode.NATIVE and verb == _ATTACH and not is_bound:
        words["generic"] = _GENERIC
    if said:
        return _by_text(said, interface, driver, words)
    impossible: tuple[str, ...] = _OF_BOUND_PROGRAMS if is_bound is False else ()
    if interface.mtu <= _ETH_DATA_LEN:
        impossible += _OF_LARGE_MTUS
    is_heard = heard or via is Via.NETLINK
    possible = [
        refusal
        for refusal in _of_errno(number, driver)
        if refusal.is_in(kernel)
        and not (is_heard and refusal.is_audible(kernel))
        and verb in refusal.verbs
        and mode.value in refusal.modes
        and (via is None or refusal.via in (via.value, None))
        and refusal.cause.name not in impossible
    ]
    return _by_errno(possible, words)


def _by_text(said: str, interface: Interface, driver: str | None, words: _Words) -> Explanation:
    quoted = f"the kernel says {said!r}"
    found = catalogue.find(said, driver)
    if found is None:
        return Explanation(f"{UNKNOWN}; {quoted}", None)
    refusal, numbers = found
    if refusal.is_below or (driver in _STACKED and refusal.driver not in (driver, None)):
        known = {**_of_what_is_below(refusal, words), **numbers}
    else:
        known = {**words, **numbers}
        if "limit" in numbers:
            known |= _of_mtu(interface.mtu, numbers["limit"])
    return Explanation(
        f"{_said(refusal.cause, known)}; {quoted}", _joined(_remedies(refusal.cause, known))
    )


def _of_errno(number: int, driver: str | None) -> Iterator[Refusal]:
    """Yield what an errno can stand for: the driver's own reasons, then the kernel's."""
    name = errno_name(number)
    for whose in dict.fromkeys((driver, None)):
        for refusal in catalogue.refusals():
            if (refusal.errno, refusal.driver) == (name, whose):
                yield refusal


def _by_errno(possible: list[Refusal], words: _Words) -> Explanation:
    """Explain without a text: one certain reason is the cause, others are what it may be."""
    causes = list({refusal.cause.name: refusal.cause for refusal in possible}.values())
    is_certain = any(refusal.is_certain for refusal in possible)
    if len(causes) == 1 and is_certain:
        return Explanation(_said(causes[0], words), _joined(_remedies(causes[0], words)))
    if not causes:
        return Explanation(UNKNOWN, None)
    known = "; ".join(_said(cause, words) for cause in causes)
    label = "a known one" if len(causes) == 1 else "known ones"
    remedies = [_remedies(cause, words) for cause in causes]
    # What helps against each of them helps, if the errno has no other reasons.
    common = [remedy for remedy in remedies[0] if all(remedy in others for others in remedies)]
    return Explanation(f"{UNKNOWN}; {label}: {known}", _joined(common) if is_certain else None)


def _said(cause: Cause, words: _Words) -> str:
    *telling, plain = cause.says
    return _filled(telling, words) or plain.format_map(words)


def _remedies(cause: Cause, words: _Words) -> list[str]:
    filled = (_filled(wordings, words) for wordings in cause.remedies)
    return [text for text in filled if text is not None]


def _joined(remedies: Iterable[str]) -> str | None:
    return "; or ".join(remedies) or None


def _filled(wordings: Iterable[str], words: _Words) -> str | None:
    """Return the first wording all of whose placeholders are known."""
    for wording in wordings:
        try:
            return wording.format_map(words)
        except KeyError:
            continue
    return None


def _of_interface(interface: Interface, mode: Mode) -> _Words:
    dev = shlex.quote(interface.name)
    words: _Words = {
        "name": interface.name,
        "dev": dev,
        "index": interface.index,
        "mtu": interface.mtu,
        "driver": f"driver {interface.driver}" if interface.driver else "its driver",
        "enter": nsenter(interface.netns),
        "other": Mode.GENERIC.value if mode is Mode.NATIVE else Mode.NATIVE.value,
    }
    if interface.netns is None:
        words["status"] = f"'xdpkit status {dev}'"
        words["sysfs"] = f"/sys/class/net/{dev}"
    else:
        words["status"] = f"'xdpkit status -n {shlex.quote(interface.netns)} {dev}'"
    return words


def _of_mtu(mtu: int, limit: int | None) -> _Words:
    """Return an MTU that fits, where the interface's own is larger."""
    if limit is not None and limit < mtu:
        return {"limit": limit, "fits": limit}
    return {"fits": _ETH_DATA_LEN} if mtu > _ETH_DATA_LEN else {}


def _of_configuration(seen: Observation) -> _Words:
    """Return what looking at the interface told: its queues, its offloads, its peer."""
    words: _Words = {}
    if seen.channels is not None:
        words["rx"] = seen.channels.rx
        words["pairs"] = min(seen.channels.rx, seen.channels.tx)
        if seen.channels.rx > 1:
            words["half"] = seen.channels.rx // 2
    offloads = (name for name in (_LRO, _GRO_HW) if name in seen.offloads)
    merging = [name for name in offloads if seen.offloads[name].active]
    if merging and all(seen.offloads[name].changeable for name in merging):
        words["merging"] = " ".join(f"{name} off" for name in merging)
    if seen.peer is not None:
        is_far = seen.link.peer_netns_id is not None
        words["far_peer" if is_far else "peer"] = shlex.quote(seen.peer.link.name)
        words["peer_mtu"] = seen.peer.link.mtu
        if seen.peer.channels is not None:
            words["peer_tx"] = seen.peer.channels.tx
    return words


def _of_driver(driver: table.Driver, seen: Observation) -> _Words:
    """Return what the table of drivers has: the largest MTU, and whether frags help."""
    words: _Words = {}
    limit = driver.mtu
    if (
        limit is not None
        and limit.is_exact
        and table.has_limits_for(seen.machine, seen.page_size)
        and (limit.since is None or seen.kernel.has(limit.since))
    ):
        words |= _of_mtu(seen.interface.mtu, limit.limit)
    answer, _ = table.answer(driver.features.get("rx_sg"), seen.kernel, driver.name)
    if answer is Answer.YES:
        words["frags"] = "xdp.frags"
    return words


def _of_what_is_below(refusal: Refusal, words: _Words) -> _Words:
    """Return words for a device below, of which nothing is known but its driver."""
    below: _Words = {
        "name": f"a device below {words['name']}",
        "driver": f"driver {refusal.driver}" if refusal.driver else "its driver",
    }
    if "generic" in words:
        below["generic"] = words["generic"]
    return below
