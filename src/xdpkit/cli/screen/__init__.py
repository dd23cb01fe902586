# SPDX-License-Identifier: Apache-2.0
"""The live screen of ``xdpkit monitor show``.

Everything but the edges is pure: a snapshot and those before make a board, a board and what the
user looks at make a frame, a key makes a new state::

    snapshot ──> board ──┐
    key ──────> state ───┼──> pages ──> frame ──> terminal

==============  ==================================================================
``text``        styled text: widths, numbers, sparklines
``tables``      tables that fit a width
``figures``       which counters tell what an interface does
``board``       what there is to be shown: sums, rates and the last minute
``troubles``    what has gone wrong, one line for each kind
``state``       what the user looks at, and what keys do
``rows``           rows and tables, from the numbers of a board
``pages``       what each page consists of
``frame``       a page, laid out for a terminal of some size
``lines``       the same without a terminal: lines, and JSON
``keys``        what a terminal sends, as names of keys
``terminal``    the terminal: taken, written to, given back
``live``        the loop that joins them
==============  ==================================================================
"""
