// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs that send to the ports of a table, and what can run on what is sent out of one. */
#include <xdpkit.h>

XDPKIT_PORTS;

volatile const __u32 port = 0;

SEC("xdp")
int to_port(struct xdp_md *ctx)
{
	return xdpkit_redirect_to_port(port);
}

SEC("xdp")
int to_others(struct xdp_md *ctx)
{
	return xdpkit_redirect_to_others();
}

char _license[] SEC("license") = "Dual BSD/GPL";
