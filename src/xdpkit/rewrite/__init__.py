# SPDX-License-Identifier: Apache-2.0
"""Rewriting of instructions: programs that count what they return, and the dispatch by RX queue.

Pure: programs in, programs out. Maps are put in afterwards, at the places that the results name.

==============  ====================================================================
``body``        a program as the kernel is given it, and the form in which it is changed
``stack``       how much stack it uses, and whether there is room for more
``exceptions``  ``bpf_throw()``
``subject``     bodies as what the analysis takes
``count``       counting what a program returns
``tailcalls``   which programs count, where programs tail-call one another
``dispatch``    the program that runs another one for each RX queue
``watch``       counting what a program returns from outside
==============  ====================================================================
"""

from __future__ import annotations

from xdpkit.rewrite.body import Body, maps_of
from xdpkit.rewrite.count import COUNTED, Counting, Counts, counting, value_size
from xdpkit.rewrite.dispatch import MAX_CALLS, NO_PROGRAM_SIZE, NoProgram, Root, root
from xdpkit.rewrite.exceptions import exception_callback
from xdpkit.rewrite.stack import stack_in_log
from xdpkit.rewrite.tailcalls import CountingPlan, Member, plan_counting
from xdpkit.rewrite.watch import WATCH_LICENSE, Layout, watching

__all__ = [
    "COUNTED",
    "MAX_CALLS",
    "NO_PROGRAM_SIZE",
    "WATCH_LICENSE",
    "Body",
    "Counting",
    "CountingPlan",
    "Counts",
    "Layout",
    "Member",
    "NoProgram",
    "Root",
    "counting",
    "exception_callback",
    "maps_of",
    "plan_counting",
    "root",
    "stack_in_log",
    "value_size",
    "watching",
]
