// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Lets every packet pass. A veth hands redirected frames to its peer only while the peer has a
 * program: any program will do.
 */
#include <xdpkit.h>

SEC("xdp.frags")
int xdp_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
