# SPDX-License-Identifier: Apache-2.0
"""Programs for some RX queues of an interface: ``hook.queues[3]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from xdpkit.errors import UsageError
from xdpkit.hook import scope
from xdpkit.hook.mode import Mode, Via
from xdpkit.hook.place import Place
from xdpkit.hook.request import Terms

if TYPE_CHECKING:
    from xdpkit.hook.delete import Detached
    from xdpkit.hook.present import Expected
    from xdpkit.hook.xdpprog import XdpProg
    from xdpkit.kernel import Program
    from xdpkit.obj import ProgramSpec

Selector = int | slice | str | tuple["int | slice | str", ...] | frozenset[int] | range


@dataclass(frozen=True, slots=True)
class AllQueues:
    """The RX queues of an interface, to choose from.

    ::

        hook.queues[3].add(obj.programs["fw"])
        hook.queues[0:4].replace(obj.programs["fw2"])
        hook.queues[0, 3, 8].delete()
        hook.queues["0-3,8"].delete()
    """

    place: Place

    def __getitem__(self, selector: Selector) -> Queues:
        """Return some of the RX queues.

        Raises:
            UsageError: the selector names none; or there is no such interface, for a slice without
                an end.
        """
        queues = frozenset(self._chosen(selector))
        if not queues or min(queues) < 0:
            raise UsageError(
                f"choose RX queues {selector!r}", cause="there is none like that: they begin with 0"
            )
        return Queues(self.place, queues)

    def _chosen(self, selector: object) -> frozenset[int]:
        if isinstance(selector, str):
            return scope.parse(selector)
        if isinstance(selector, slice):
            parts = (selector.start, selector.stop, selector.step)
            if all(part is None or isinstance(part, int) for part in parts) and selector.step != 0:
                return frozenset(range(*selector.indices(self.__len__())))
        elif isinstance(selector, int) and not isinstance(selector, bool):
            return frozenset((selector,))
        elif isinstance(selector, tuple | list | set | frozenset | range):
            return frozenset[int]().union(*(self._chosen(each) for each in selector))
        raise UsageError(
            f"choose RX queues {selector!r}",
            cause='queues are numbers, a slice, or text like "0-3,8"',
        )

    def __iter__(self) -> Iterator[Queues]:
        """Yield the RX queues, one by one.

        Raises:
            UsageError: there is no such interface or namespace.
        """
        return (self[queue] for queue in range(len(self)))

    def __contains__(self, queue: object) -> bool:
        return queue in range(len(self))

    def __bool__(self) -> bool:
        # An interface has one, at least.
        return True

    def __len__(self) -> int:
        """Return how many RX queues the interface was made with; it may use fewer.

        Raises:
            UsageError: there is no such interface or namespace.
        """
        return self.place.resolve().rx_queues


@dataclass(frozen=True, slots=True)
class Queues:
    """Some RX queues of an interface, and the programs of their own that they have.

    A program of a queue's own takes precedence over the global one, which serves the queues that
    have none. Where neither is, packets pass. Several queues are changed in one step.

    Attributes:
        place: the hook. queues: the queues.
    """

    place: Place
    queues: frozenset[int]

    def open(self) -> XdpProg | None:
        """Open the program that these queues have of their own; None if they have none.

        Raises:
            UsageError: they have different ones; or there is no such interface or namespace.
            MissingPrivilege: looking up an object by its id takes CAP_SYS_ADMIN.
        """
        from xdpkit.hook.opening import open_present

        return open_present(self.place, self.queues)

    def add(
        self,
        program: ProgramSpec | Program,
        *,
        mode: Mode | str | Sequence[Mode | str] | None = None,
        via: Via | str | None = None,
        revert_after: float | None = None,
        **terms: Unpack[Terms],
    ) -> XdpProg:
        """Give the queues a program, none of which may have one of its own.

        Arguments and errors are those of :meth:`xdpkit.Hook.add`; it is pinned, always. All
        programs of an interface are in the same mode.
        """
        from xdpkit.hook.changes import prepare_add

        return prepare_add(
            self.place, program, queues=self.queues, mode=mode, via=via, **terms
        ).apply(revert_after=revert_after)

    def replace(
        self,
        program: ProgramSpec | Program,
        *,
        expected: Expected | None = None,
        revert_after: float | None = None,
        **terms: Unpack[Terms],
    ) -> XdpProg:
        """Put a program in the place of those that the queues have, in one step.

        Arguments and errors are those of :meth:`xdpkit.Hook.replace`; the expected program has to
        be that of each queue.
        """
        from xdpkit.hook.changes import prepare_replace

        return prepare_replace(
            self.place, program, queues=self.queues, expected=expected, **terms
        ).apply(revert_after=revert_after)

    def delete(
        self,
        *,
        expected: Expected | None = None,
        keep_root: bool = False,
        revert_after: float | None = None,
    ) -> Detached:
        """Take the queues' programs off: the global one serves them from then on.

        Arguments and errors are those of :meth:`xdpkit.Hook.delete`.
        """
        from xdpkit.hook.changes import prepare_delete

        return prepare_delete(
            self.place, queues=self.queues, expected=expected, keep_root=keep_root
        ).apply(revert_after=revert_after)
