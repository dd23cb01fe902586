# SPDX-License-Identifier: Apache-2.0
"""Real forwarding with XDP, as anybody could write it: ``xdpkit forward`` runs these.

``switch.c`` and ``router.c`` are what runs for each frame; :mod:`.switch` and :mod:`.router` put
them on interfaces, and :mod:`.forwarding` is what both have in common. Nothing here uses more of
xdpkit than its public names, so each file can be copied and changed.
"""
