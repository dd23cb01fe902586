# SPDX-License-Identifier: Apache-2.0
"""Rewriting of instructions: programs that count what they return, and the dispatch by RX queue.

Pure: programs in, programs out. Maps are put in afterwards, at the places that the results name.

==============  ====================================================================
``body``        a program as the kernel is given it, and the form in which it is changed
``stack``       how much stack it uses, and whether there is room for more
``exceptions``  ``bpf_throw()``
``subject``     bodies as what the analysis takes
``exits``       doing something more wherever a function returns
``count``       counting what a program returns
``report``      writing a record about a frame into a ring buffer
``tap``         reporting frames with what a program returns for them
``tailcalls``   which programs count, where programs tail-call one another
``dispatch``    the program that runs another one for each RX queue
``watch``       counting what a program returns from outside
``listen``      reporting it from outside
==============  ====================================================================
"""

from __future__ import annotations

from xdpkit.rewrite.body import Body, maps_of
from xdpkit.rewrite.count import COUNTED, Counting, Counts, counting, value_size
from xdpkit.rewrite.dispatch import MAX_CALLS, NO_PROGRAM_SIZE, NoProgram, Root, root
from xdpkit.rewrite.exceptions import exception_callback
from xdpkit.rewrite.listen import listening
from xdpkit.rewrite.report import EVENT_SIZE, Event, Reporting, Spending, require_sense
from xdpkit.rewrite.stack import stack_in_log
from xdpkit.rewrite.tailcalls import CountingPlan, Member, plan_counting
from xdpkit.rewrite.tap import Tapping, tapping
from xdpkit.rewrite.watch import WATCH_LICENSE, Layout, watching

__all__ = [
    "COUNTED",
    "EVENT_SIZE",
    "MAX_CALLS",
    "NO_PROGRAM_SIZE",
    "WATCH_LICENSE",
    "Body",
    "Counting",
    "CountingPlan",
    "Counts",
    "Event",
    "Layout",
    "Member",
    "NoProgram",
    "Reporting",
    "Root",
    "Spending",
    "Tapping",
    "counting",
    "exception_callback",
    "listening",
    "maps_of",
    "plan_counting",
    "require_sense",
    "root",
    "stack_in_log",
    "tapping",
    "value_size",
    "watching",
]
