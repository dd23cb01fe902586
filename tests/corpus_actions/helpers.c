// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What helpers return, and what it may become.
#include "actions.h"

// actions: any
SEC("xdp") int by_chance(struct xdp_md *ctx)
{
	return bpf_get_prandom_u32();
}

// actions: DROP PASS
SEC("xdp") int sampled(struct xdp_md *ctx)
{
	return bpf_get_prandom_u32() & 1 ? XDP_DROP : XDP_PASS;
}

// actions: any
SEC("xdp") int the_queue(struct xdp_md *ctx)
{
	return ctx->rx_queue_index;
}

// actions: PASS
SEC("xdp") int prints(struct xdp_md *ctx)
{
	static const char format[] = "number %d";

	bpf_trace_printk(format, sizeof(format), input(ctx));
	return XDP_PASS;
}

// actions: DROP PASS
SEC("xdp") int by_time(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	return now / 1000 % 2 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
