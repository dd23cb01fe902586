# SPDX-License-Identifier: Apache-2.0
"""Make a root for programs that are to go on a hook, and refuse those that cannot be run by one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from xdpkit.errors import RequirementUnmet
from xdpkit.hook import records, roots
from xdpkit.hook.looking import idle_note
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.placing import Coming
from xdpkit.hook.request import is_bound
from xdpkit.hook.roots import Kind, NotAlike, Root
from xdpkit.hook.scope import Scope
from xdpkit.hook.writing import write_own
from xdpkit.interfaces import Interface
from xdpkit.interfaces.interface import rx_queues_in_use
from xdpkit.uapi.bpf import MapType

if TYPE_CHECKING:
    from xdpkit.kernel import Program

_FRAGS = {True: "takes packets in fragments (frags)", False: "takes no fragments"}


@contextlib.contextmanager
def new_root(
    interface: Interface,
    mode: Mode,
    via: Via,
    members: Mapping[int | None, Program],
    what: str,
    *,
    runs: tuple[Coming, ...] = (),
    before: Root | None = None,
    revert_after: float | None = None,
    reverts_to: int = 0,
) -> Iterator[Coming]:
    """Load a root and fill its program array; the context keeps it until it is on the hook.

    Args:
        interface: the interface. mode, via: how it will be attached.
        members: the programs by RX queue; None: the global one.
        what: what is being tried, for errors.
        runs: those of the programs that were not there before.
        before: the root that it takes the place of, whose counters go on.
        revert_after, reverts_to: see :func:`xdpkit.hook.writing.write_record`.

    Raises:
        RequirementUnmet: the programs cannot be in one program array.
        KernelRefused: the kernel refused.
    """
    # Those that one root ran are alike.
    arriving = {each.program.id: each.program for each in runs}
    staying = (each for each in members.values() if each.id not in arriving)
    kind = require_alike([*arriving.values(), *itertools.islice(staying, 1)], what)
    if kind is None and before is not None:
        # The interface may need it: large packets want programs that take them in fragments.
        kind = roots.kind_of(before)
    program = _filled(
        interface, kind, members, what, before.unserved_id if before is not None else None
    )
    with program:
        record, _ = write_own(
            program, interface, mode, via, revert_after=revert_after, reverts_to=reverts_to
        )
        yield Coming(program, record, keeps_maps=True, runs=runs)


def _filled(
    interface: Interface,
    kind: Kind | None,
    members: Mapping[int | None, Program],
    what: str,
    unserved_id: int | None,
) -> Program:
    """Load a root and fill its program array.

    Of programs that others loaded the kernel does not tell their kind, so it is tried which suits.
    """
    refused: NotAlike | None = None
    for each in (kind,) if kind is not None else roots.KINDS:
        program, root = roots.load(roots.size_for(interface), each, unserved_id)
        try:
            with roots.open_array(root, what) as array:
                for queue, member in members.items():
                    roots.put(array, root, queue, member, what)
            return program
        except NotAlike as error:
            refused = refused or error
            program.close()
        except BaseException:
            program.close()
            raise
    assert refused is not None, "there are kinds to try"
    raise refused


def require_alike(programs: Iterable[Program], what: str) -> Kind | None:
    """Return what programs have in common that are to be in one program array, None if unknown.

    Raises:
        RequirementUnmet: they are not alike.
        MissingPrivilege: it takes CAP_SYS_ADMIN to look.
    """
    first: tuple[Program, Kind] | None = None
    for program in programs:
        kind = kind_of(program)
        if kind is None:
            continue
        if first is None:
            first = program, kind
        elif kind != first[1]:
            raise _unlike(*first, program, kind, what)
    return first[1] if first is not None else None


def kind_of(program: Program) -> Kind | None:
    """Return how a program was loaded, None if nobody wrote it down."""
    image = program.image or records.image_of(program.fileno())
    return Kind.of(image) if image is not None else None


def _unlike(
    one: Program, kind: Kind, other: Program, other_kind: Kind, what: str
) -> RequirementUnmet:
    if kind.frags != other_kind.frags:
        return RequirementUnmet(
            what,
            cause=f"{one.name} {_FRAGS[kind.frags]}, and {other.name} {_FRAGS[other_kind.frags]}:"
            " the kernel puts only programs that are alike in this under one root",
            remedy='build all of them with frags (SEC("xdp.frags")), or all without',
        )
    return RequirementUnmet(
        what,
        cause=f"{one.name} and {other.name} were loaded with different expected attach types"
        f" ({kind.attach_type} and {other_kind.attach_type}), and the kernel puts only programs"
        " that are alike in this under one root",
    )


def require_unbound(program: Program, what: str) -> None:
    """Refuse a program that is bound to a device.

    Raises:
        RequirementUnmet: it is, and the kernel takes it into no program array
            (``__bpf_prog_map_compatible()`` in kernel/bpf/core.c).
    """
    if program.bound_to is not None or (not program.was_loaded_here and is_bound(program)):
        raise RequirementUnmet(
            what,
            cause=f"{program.name} is bound to a device, and the kernel does not let another"
            " program run one that is (it takes no such program into a program array)",
            remedy="attach it for all queues",
        )


def note_on_idle_queues(queues: Scope, interface: Interface) -> str | None:
    """Return what there is to know about RX queues that an interface has, and does not use now."""
    in_use = rx_queues_in_use(interface) if queues is not None else None
    if queues is None or in_use is None or max(queues) < in_use:
        return None
    idle = idle_note((queue for queue in queues if queue >= in_use), interface)
    return f"{idle}: the program waits there"


def note_on_tail_calls(program: Program) -> str | None:
    """Return what there is to know about a program that a root will run, if it makes tail calls.

    The kernel allows 33 in a row (MAX_TAIL_CALL_CNT in include/linux/bpf.h). Before Linux 6.12 that
    of an empty slot counts, too, on the way to the global program.
    """
    if not any(used.type == MapType.PROG_ARRAY for used in program.maps.values()):
        return None
    return (
        f"{program.name} can make one tail call less here than the 33 in a row that the kernel"
        " allows: the one that leads to it counts, too"
    )
