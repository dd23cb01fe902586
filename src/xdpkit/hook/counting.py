# SPDX-License-Identifier: Apache-2.0
"""A program that is about to be attached where programs are counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from xdpkit.errors import KernelRefused, MissingPrivilege, RequirementUnmet
from xdpkit.hook import records
from xdpkit.hook.homes import ids_on
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.settings import Counting
from xdpkit.hook.work import Work

if TYPE_CHECKING:
    from xdpkit.interfaces import Interface
    from xdpkit.kernel import Program
    from xdpkit.kernel.image import Image


def for_hook(
    loaded: Program,
    *,
    interface: Interface,
    counting: Counting,
    queues: frozenset[int] | None,
    entries: int,
    mode: Mode,
    via: Via,
    resources: ExitStack,
    what: str,
) -> tuple[Program, Counting, tuple[str, ...]]:
    """Return the program that is to go on a hook in place of the one that was loaded.

    That is the copy that counts; the loaded program stays open as long as the copy, since they
    share maps. Or it is the loaded program itself, where it cannot be counted, for which there is a
    sentence then. With it comes what it counts. What can be counted of the programs that it
    tail-calls counts from now on, unless the block of ``resources`` fails. The record is for the
    caller to write, with the loaded program's id as the logical one.

    Args:
        loaded: the program.
        interface: whose hook it is. counting: what is to be counted there.
        queues: the RX queues that the program is to serve; None: it is the global one.
        entries: how many RX queues are told apart.
        mode, via: how the program will be attached.
        resources: what the copy is closed with.
        what: what is being tried, for errors.

    Raises:
        KernelRefused: the kernel refused something for a reason that has nothing to do with
            counting.
    """
    try:
        with ExitStack() as made:
            found = _counted(loaded, interface, counting, queues, entries, mode, via, made, what)
            resources.push(made.pop_all())
            return found
    except (MissingPrivilege, RequirementUnmet) as error:
        sentence = f"What {loaded.name} returns is not counted: {error.cause}."
        return loaded, Counting.OFF, (sentence,)


def image_if_counted(program: Program) -> Image | None:
    """Return what a program is loaded from if it counts or reports for an attachment, or has done.

    None for all others, and where this process may not look.
    """
    from xdpkit.hook.copies import counters_of

    if program.was_loaded_here:
        return program.image if program.counters is not None else None
    with suppress(MissingPrivilege, RequirementUnmet, KernelRefused):
        image = records.image_of(program.fileno())
        map_ids = program.info().map_ids
        if image is not None and (
            counters_of(map_ids, image) or any(each.record.tap for each in records.find_in(map_ids))
        ):
            return image
    return None


def as_it_was(copy: Program, image: Image, interface: Interface) -> Program:
    """Load a program as it was, from a copy of it that counts elsewhere; the caller closes it.

    Args:
        copy: the copy. image: what the program is loaded from. interface: whose hook it is for.

    Raises:
        RequirementUnmet: something that it needs is gone.
        MissingPrivilege: a capability is missing.
        KernelRefused: the kernel refused.
    """
    from xdpkit.hook.copies import uncounted_copy

    like = copy if copy.was_loaded_here else None
    return uncounted_copy(image, interface=interface, like=like)


def _counted(
    loaded: Program,
    interface: Interface,
    counting: Counting,
    queues: frozenset[int] | None,
    entries: int,
    mode: Mode,
    via: Via,
    resources: ExitStack,
    what: str,
) -> tuple[Program, Counting, tuple[str, ...]]:
    from xdpkit.hook import leaves, reach

    images = {each.id: each.image for each in (loaded, *loaded.leaves) if each.image is not None}
    hooks = frozenset({(interface.netns_cookie, interface.index)})
    web = reach.look([loaded.id], images)
    wanted, begins = None, True
    if web.arrays:
        # Programs that are on the hook may use the same arrays, and count by them already.
        serving = list(_serving(interface, what))
        if web.arrays.keys() & reach.look(serving).arrays.keys():
            begins = False
            firsts = [loaded.id, *serving]
            web = reach.look(firsts, images)
            firsts = [number for number in firsts if number in web.programs]
            # What they would load is held by nobody if this process dies.
            wanted = leaves.without_copies(leaves.plan(web, firsts, hooks), web)
    wanted = wanted or leaves.plan(web, [loaded.id], hooks)
    terms = leaves.Terms(
        interface=interface,
        hooks=hooks,
        mode=mode,
        via=via,
        work=Work(counting),
        queues=entries,
        held={loaded.id: frozenset()},
        alone={loaded.id: next(iter(queues))} if queues is not None and len(queues) == 1 else {},
        coming=loaded,
        begins=begins,
    )
    with leaves.Copies(web, wanted, terms) as copies:
        resources.enter_context(copies.exchanges)
        copies.make_arrays()
        copies.put_leaves()
        made = copies.take(loaded.id, Work(counting))
        notes = tuple(copies.notes)
    copies.exchanges.callback(partial(setattr, loaded, "made", loaded.made))
    loaded.made = _made_now(loaded, copies.put)
    if made is None:
        return loaded, Counting.OFF, notes
    copy, counting = made
    resources.enter_context(copy)
    copy.made = loaded.made
    return copy, counting, notes


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
