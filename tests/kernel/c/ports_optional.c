// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A program that does without port and table where there are none.
#include <xdpkit.h>

XDPKIT_PORTS;
XDPKIT_PORT_SET(guests);
XDPKIT_OPTIONAL("port-index");
XDPKIT_OPTIONAL("port-table");
XDPKIT_OPTIONAL("port-set:guests");

/* What it has read, and what came of it. */
__u32 read, sent = XDP_PASS;

SEC("xdp") int optional(struct xdpkit_md *ctx)
{
	read = ctx->port_index;
	sent = ctx->port_index == 0 ? xdpkit_redirect_to_set(guests) : xdpkit_redirect_to_port(0);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
