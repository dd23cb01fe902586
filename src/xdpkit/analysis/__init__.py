# SPDX-License-Identifier: Apache-2.0
"""What a program can return and what it uses, found out from its instructions.

>>> found = analyse(subject_of(obj.programs["fw"]))
>>> str(found.actions)
'DROP PASS'

An abstract interpretation over registers and stack slots. Pure: it needs neither the file that the
program came from nor a kernel; :func:`subject_of` makes its input from an object file.

============  ======================================================================
``subject``   what is analysed, as a value
``values``    the numbers that a register may hold: small sets and ranges
``refine``    what a conditional jump tells about its operands
``state``     registers and stack frames at one place
``cfg``       blocks, their order, and the registers that are still needed
``effects``   the table of helpers and kernel functions
``machine``   what an instruction does to a state
``calls``     what a helper or kernel function does to a state
``explore``   following a program through its paths and calls
``usage``     taking down what it uses
``solve``     a program together with those that its tail calls reach
``report``    the result
============  ======================================================================
"""

from __future__ import annotations

from xdpkit.analysis.objects import subject_of
from xdpkit.analysis.report import (
    Actions,
    Adjustment,
    Analysis,
    ContextAccess,
    FunctionUse,
    Loops,
    Origin,
    Redirect,
    Stack,
    TailCall,
    Throw,
    Unknown,
)
from xdpkit.analysis.solve import analyse
from xdpkit.analysis.subject import Function, Reference, Subject, SubjectMap
from xdpkit.analysis.usage import Place
from xdpkit.analysis.values import Cause, CauseKind

__all__ = [
    "Actions",
    "Adjustment",
    "Analysis",
    "Cause",
    "CauseKind",
    "ContextAccess",
    "Function",
    "FunctionUse",
    "Loops",
    "Origin",
    "Place",
    "Redirect",
    "Reference",
    "Stack",
    "Subject",
    "SubjectMap",
    "TailCall",
    "Throw",
    "Unknown",
    "analyse",
    "subject_of",
]
