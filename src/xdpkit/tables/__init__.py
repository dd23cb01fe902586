# SPDX-License-Identifier: Apache-2.0
"""Port tables, as they are kept in the kernel.

:mod:`~xdpkit.tables.model` says what a table is, :mod:`~xdpkit.tables.wire` how it is laid out in
bytes, :mod:`~xdpkit.tables.store` where it is kept, and :mod:`~xdpkit.tables.entries` what is in
the maps that programs use.
"""
