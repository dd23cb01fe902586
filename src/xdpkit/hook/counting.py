# SPDX-License-Identifier: Apache-2.0
"""A program that is about to be attached where programs are counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xdpkit.errors import MissingPrivilege, RequirementUnmet
from xdpkit.hook.homes import ids_on
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.settings import Counting

if TYPE_CHECKING:
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Program


def for_hook(
    loaded: Program,
    *,
    interface: Interface,
    counting: Counting,
    queues: frozenset[int] | None,
    entries: int,
    mode: Mode,
    via: Via,
    what: str,
) -> tuple[Program, tuple[str, ...]]:
    """Return the program that is to go on a hook in place of the one that was loaded.

    That is the copy that counts, which is the caller's to close; the loaded program stays open as
    long as the copy, since they share maps. Or it is the loaded program itself, where it cannot be
    counted, for which there is a sentence then. What can be counted of the
    programs that it tail-calls counts from now on. The record is for the caller to write, with the
    loaded program's id as the logical one.

    Args:
        loaded: the program.
        interface: whose hook it is. counting: what is to be counted there.
        queues: the RX queues that the program is to serve; None: it is the global one.
        entries: how many RX queues are told apart.
        mode, via: how the program will be attached.
        what: what is being tried, for errors.

    Raises:
        KernelRefused: the kernel refused something for a reason that has nothing to do with
            counting.
    """
    try:
        return _counted(loaded, interface, counting, queues, entries, mode, via, what)
    except (MissingPrivilege, RequirementUnmet) as error:
        return loaded, (f"What {loaded.name} returns is not counted: {error.cause}.",)


def as_it_was(copy: Program, interface: Interface) -> Program:
    """Load a program as it was, from a copy of it that counts elsewhere; the caller closes it.

    Raises:
        RequirementUnmet: something that it needs is gone.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused.
    """
    from xdpkit.hook.copies import uncounted_copy

    assert copy.image is not None, "a copy is made from an image"
    return uncounted_copy(copy.image, interface=interface, like=copy)


def _counted(
    loaded: Program,
    interface: Interface,
    counting: Counting,
    queues: frozenset[int] | None,
    entries: int,
    mode: Mode,
    via: Via,
    what: str,
) -> tuple[Program, tuple[str, ...]]:
    from xdpkit.hook import leaves, reach

    images = {each.id: each.image for each in (loaded, *loaded.leaves) if each.image is not None}
    hooks = frozenset({(interface.netns_cookie, interface.index)})
    terms = leaves.Terms(
        interface=interface,
        hooks=hooks,
        mode=mode,
        via=via,
        counting=counting,
        queues=entries,
        held={loaded.id: frozenset()},
        alone=frozenset({loaded.id} if queues is not None and len(queues) == 1 else ()),
        coming=loaded,
    )
    web = reach.look([loaded.id], images)
    wanted = None
    if web.arrays:
        # Programs that are on the hook may use the same arrays, and count by them already.
        serving = list(_serving(interface, what))
        if web.arrays.keys() & reach.look(serving).arrays.keys():
            firsts = [loaded.id, *serving]
            web = reach.look(firsts, images)
            firsts = [number for number in firsts if number in web.programs]
            # What they would load is held by nobody if this process dies.
            wanted = leaves.without_copies(leaves.plan(web, firsts, hooks), web)
    wanted = wanted or leaves.plan(web, [loaded.id], hooks)
    with leaves.Copies(web, wanted, terms) as copies:
        copies.make_arrays()
        copies.put_leaves()
        copy = copies.take(loaded.id, counting)
        notes = tuple(copies.notes)
        loaded.made = _made_now(loaded, copies.put)
    if copy is None:
        return loaded, notes
    copy.made = loaded.made
    return copy, notes


def _made_now(loaded: Program, put: dict[tuple[int, int], int]) -> dict[str, dict[int, int]]:
    """Return what is in the arrays that were made with a program, with the copies."""
    ids = {name: found.id for name, found in loaded.maps.items()}
    return {
        name: {slot: put.get((ids.get(name, 0), slot), member) for slot, member in made.items()}
        for name, made in loaded.made.items()
    }


def _serving(interface: Interface, what: str) -> Iterator[int]:
    """Yield the programs that serve an interface's packets now."""
    from xdpkit.hook import roots
    from xdpkit.hook.looking import root_of

    for number in ids_on(interface):
        root = root_of(number) if number is not None else None
        if root is not None:
            yield from set(roots.members_of(root, what).values())
        elif number is not None:
            yield number
