# SPDX-License-Identifier: Apache-2.0
"""The demo: a firewall at work between two private network namespaces."""
