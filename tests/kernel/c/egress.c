// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program for what is sent out of a port, which returns what it is told to. */
#include <xdpkit.h>

volatile const int action = XDP_PASS;

SEC("xdp/devmap")
int egress(struct xdp_md *ctx)
{
	return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
