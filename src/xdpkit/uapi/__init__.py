# SPDX-License-Identifier: Apache-2.0
"""Constants and layouts of the kernel's user interface, under their kernel names."""
