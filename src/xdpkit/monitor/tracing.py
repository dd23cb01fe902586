# SPDX-License-Identifier: Apache-2.0
"""A reader's own programs on the kernel's tracepoints (``bpf/events.c``).

They are not pinned: when the process ends, however that happens, they are gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from xdpkit.errors import RequirementUnmet, UsageError
from xdpkit.kernel import attach_tracepoint, shipped
from xdpkit.monitor.record import ACTIONS
from xdpkit.monitor.tracepoints import Form
from xdpkit.syscalls.bpf import object_name
from xdpkit.syscalls.closing import Closing
from xdpkit.uapi.bpf import BPF_OBJ_NAME_LEN

if TYPE_CHECKING:
    from xdpkit.kernel import Map
    from xdpkit.monitor.ring import Ring
    from xdpkit.obj import Object

_OBJECT = "events.o"
_WHAT = "watch events"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted; the kernel's side leaves all others out before they cost anything.

    Attributes:
        netns: the inode number of a network namespace, 0: all of them.
        by_interface: only those of interfaces that :meth:`Tracing.follow_interfaces` names.
        by_program: only those of programs that :meth:`Tracing.follow_programs` names.
        actions: names of :data:`xdpkit.rewrite.COUNTED`.
        transmit: also what is lost when redirected frames are transmitted, in bulks.
    """

    netns: int = 0
    by_interface: bool = False
    by_program: bool = False
    actions: frozenset[str] = frozenset(ACTIONS)
    transmit: bool = False

    @property
    def is_everywhere(self) -> bool:
        """Whether no interface and no program is left out."""
        return not (self.netns or self.by_interface or self.by_program)


@dataclass(frozen=True, slots=True)
class _Tracer(Form):
    """A program that tells.

    Attributes:
        needs: the actions which must all be wanted, or it has nothing to tell.
        is_transmit: whether it tells of transmissions.
        is_everywhere: whether it knows neither interface nor program, so that it is only for a
            reader who leaves none out.
    """

    needs: frozenset[str] = frozenset()
    is_transmit: bool = False
    is_everywhere: bool = False

    def is_wanted(self, filter: Filter) -> bool:
        return (
            self.needs <= filter.actions
            and (not self.is_transmit or (filter.transmit and not filter.by_program))
            and (not self.is_everywhere or filter.is_everywhere)
        )


_TX, _REDIRECT, _ALL = (frozenset(each) for each in (["tx"], ["redirect"], ACTIONS))

# Before Linux 5.6 (1d233886dd90 "xdp: Use bulking for non-map XDP_REDIRECT and consolidate code
# paths") redirects by a map had tracepoints of their own. They are left out: the ring buffer came
# with 5.8.
_TRACERS = (
    _Tracer("exception", "xdp_exception", 3),
    _Tracer("redirect_error", "xdp_redirect_err", 7, target=True, needs=_REDIRECT),
    _Tracer("redirect_error_no_target", "xdp_redirect_err", 7, target=False, needs=_REDIRECT),
    _Tracer("redirect_error_of_map", "xdp_redirect_err", 6, needs=_REDIRECT),
    _Tracer("devmap_xmit", "xdp_devmap_xmit", 5, needs=_REDIRECT, is_transmit=True),
    _Tracer("bulk_tx", "xdp_bulk_tx", 4, needs=_TX, is_transmit=True),
    _Tracer(
        "cpumap_enqueue",
        "xdp_cpumap_enqueue",
        4,
        needs=_REDIRECT,
        is_transmit=True,
        is_everywhere=True,
    ),
    _Tracer(
        "cpumap_kthread",
        "xdp_cpumap_kthread",
        5,
        needs=_REDIRECT,
        is_transmit=True,
        is_everywhere=True,
    ),
    _Tracer("attach_failed", "bpf_xdp_link_attach_failed", 1, needs=_ALL, is_everywhere=True),
)


class Tracing(Closing):
    """The programs, running: a context manager that owns them.

    Attributes:
        tracepoints: what is watched. absent: what is not, as this kernel does not have it.
    """

    def __init__(self, ring: Ring, wanted: Filter) -> None:
        """Load the programs and attach them.

        Args:
            ring: where they write. wanted: what they tell of. Without a call of
                :meth:`follow_interfaces` or :meth:`follow_programs`, what is limited by those is
                nothing.

        Raises:
            RequirementUnmet: the kernel has no types, or not this kind of program.
            MissingPrivilege: a capability is missing.
            KernelRefused: the kernel refused.
        """
        from xdpkit.kernel import load_all

        tracers = [tracer for tracer in _TRACERS if tracer.is_wanted(wanted)]
        fitting = {tracer.program: tracer for tracer in tracers if tracer.suits()}
        if not fitting:
            raise RequirementUnmet(_WHAT, cause="this kernel has none of the tracepoints for it")
        self.tracepoints = tuple(tracer.tracepoint for tracer in fitting.values())
        names = dict.fromkeys(tracer.tracepoint for tracer in tracers)
        self.absent = tuple(name for name in names if name not in self.tracepoints)
        given = {"events": ring.ring, "credits": ring.credits, "spending": ring.spending}
        with ExitStack() as owned:
            loaded = owned.enter_context(
                load_all(_object(wanted, given), programs=fitting, maps=given)
            )
            self._loaded = loaded
            for program in loaded.programs.values():
                owned.enter_context(attach_tracepoint(program))
            self._owned = owned.pop_all()

    def follow_interfaces(self, indexes: Collection[int]) -> None:
        """Tell of these interfaces, by their indexes.

        Raises:
            UsageError: they are too many.
        """
        _follow(self._loaded.maps["interfaces"], set(indexes), "interfaces")

    def follow_programs(self, programs: Collection[int | str]) -> None:
        """Tell of these programs, by their ids and names; the kernel keeps 15 characters of a name.

        Raises:
            UsageError: they are too many.
        """
        ids = {each for each in programs if isinstance(each, int)}
        names = {kernel_name(each) for each in programs if isinstance(each, str)}
        _follow(self._loaded.maps["program_ids"], ids, "programs")
        _follow(self._loaded.maps["program_names"], names, "programs")

    @property
    def missed(self) -> int:
        """How many events were missed, as the program ran already on that CPU."""
        return sum(program.info().recursion_misses for program in self._loaded.programs.values())

    def close(self) -> None:
        """Detach the programs; closing twice does nothing."""
        self._owned.close()


def kernel_name(name: str) -> bytes:
    """Return a program's name as the kernel keeps it."""
    return object_name(name).ljust(BPF_OBJ_NAME_LEN, b"\0")


def _object(wanted: Filter, given: Mapping[str, Map]) -> Object:
    """Return the object, set to a filter, and with the reader's own maps in their sizes."""
    from xdpkit.obj import read

    obj = read(shipped.path(_OBJECT))
    obj.variables["only_netns"] = wanted.netns
    obj.variables["by_interface"] = int(wanted.by_interface)
    obj.variables["by_program"] = int(wanted.by_program)
    obj.variables["actions"] = sum(1 << ACTIONS.index(name) for name in wanted.actions)
    sizes = {
        name: replace(obj.maps[name], max_entries=made.max_entries) for name, made in given.items()
    }
    return replace(obj, maps=MappingProxyType({**obj.maps, **sizes}))


def _follow(found: Map, wanted: set[Any], what: str) -> None:
    """Make a set of what a map has for keys; what stays is there all the time."""
    if len(wanted) > found.max_entries:
        raise UsageError(
            _WHAT, cause=f"there are {len(wanted):,} {what}, and {found.max_entries:,} can be named"
        )
    there = set(found)
    found.delete_many(there - wanted)
    found.update_many((key, 1) for key in wanted - there)
