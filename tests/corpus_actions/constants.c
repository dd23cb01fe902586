// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Each action alone, combinations of them, and codes that are no action.
#include "actions.h"

// actions: ABORTED
SEC("xdp") int aborted(struct xdp_md *ctx)
{
	return XDP_ABORTED;
}

// actions: DROP
SEC("xdp") int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

// actions: PASS
SEC("xdp") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

// actions: TX
SEC("xdp") int tx(struct xdp_md *ctx)
{
	return XDP_TX;
}

// actions: REDIRECT
SEC("xdp") int redirect_without_helper(struct xdp_md *ctx)
{
	return XDP_REDIRECT;
}

// actions: DROP PASS
SEC("xdp") int drop_or_pass(struct xdp_md *ctx)
{
	return input(ctx) ? XDP_DROP : XDP_PASS;
}

// actions: ABORTED DROP PASS TX
SEC("xdp") int by_switch(struct xdp_md *ctx)
{
	switch (input(ctx)) {
	case 0:
		return XDP_PASS;
	case 7:
		return XDP_TX;
	case 3:
		return XDP_DROP;
	default:
		return XDP_ABORTED;
	}
}

// actions: PASS 42
SEC("xdp") int forty_two(struct xdp_md *ctx)
{
	return input(ctx) == 5 ? 42 : XDP_PASS;
}

// actions: PASS 4294967295
SEC("xdp") int minus_one(struct xdp_md *ctx)
{
	return input(ctx) == 5 ? -1 : XDP_PASS;
}

// actions: DROP PASS 5
SEC("xdp") int one_too_many(struct xdp_md *ctx)
{
	if (input(ctx) > 10)
		return 5;
	return input(ctx) & 1 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
