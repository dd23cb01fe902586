# SPDX-License-Identifier: Apache-2.0
"""A program that fields are to be provided to, with all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xdpkit.analysis import Analysis, Function, Reference, analyse
from xdpkit.btf import Btf
from xdpkit.context.declared import Declared
from xdpkit.errors import RequirementUnmet
from xdpkit.rewrite import Body, exception_callback
from xdpkit.rewrite.subject import subject_of_body


@dataclass(frozen=True, slots=True)
class Program:
    """A program, analysed.

    Attributes:
        body: the program. throw: BTF id of ``bpf_throw`` in the kernel.
        declared: what its type and line information says.
        found: what it does.
        exception_callback: where the function begins that goes on after a throw.
        what: what is tried, for errors.
    """

    body: Body
    throw: int | None
    declared: Declared
    found: Analysis
    exception_callback: int | None
    what: str

    @classmethod
    def of(
        cls,
        body: Body,
        types: Btf | None,
        throw: int | None,
        kfuncs: Mapping[int, Reference],
        *,
        what: str,
    ) -> Program:
        """Analyse a program; the arguments are those of :func:`~xdpkit.context.provide`.

        Raises:
            ObjectFormatError: the body contradicts itself, or its types.
        """
        declared = Declared(body, types)
        callback = None if types is None else exception_callback(body, types)
        subject = subject_of_body(body, throw, kfuncs)
        named = [
            Function(each.slot, declared.name(each.slot), declared.is_global(each.slot))
            for each in subject.functions
        ]
        found = analyse(replace(subject, functions=tuple(named), exception_callback=callback))
        return cls(body, throw, declared, found, callback, what)

    def refusal(self, cause: str, remedy: str | None = None) -> RequirementUnmet:
        """Return the error for what cannot be provided."""
        return RequirementUnmet(self.what, cause=cause, remedy=remedy)
