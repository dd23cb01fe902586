# SPDX-License-Identifier: Apache-2.0
"""What can be wrong: pure functions from what was seen to complaints.

==============  ==================================================================
``complaint``   a complaint, as a value, and the words that all of them use
``facts``       what was seen, as values
``gathering``   the only one that asks the kernel
``code``        the instructions of attached programs, analysed
``lines``       the lines of a program that can give a result
``returned``    what programs returned and drivers could not do
``redirected``  what was redirected, and got lost on the way
``attached``    what is on the hooks, and whether it still fits
``host``        the machine, and the watching itself
==============  ==================================================================
"""
