# SPDX-License-Identifier: Apache-2.0
"""What can be wrong: pure functions from what was seen to complaints.

===============  ======================================================================
``complaint``    a complaint, as a value, and the words that all of them use
``shell``        words of commands that are told
``facts``        what was seen, as values
``gathering``    the only one that asks the kernel
``code``         the instructions of attached programs, analysed
``lines``        the lines of a program that can give a result
``returned``     what programs returned and drivers could not do
``targets``      what is wrong now with the targets of redirects
``redirected``   redirects that the kernel refused
``transmitted``  what was to be transmitted, or to go to another CPU, and got lost
``ports``        port tables: ports that lose frames, and programs with another port's number
``attached``     what is on the hooks, and whether it still fits
``host``         the machine, and the watching itself
===============  ======================================================================
"""
