// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Weak and hidden symbols: functions and variables.
#include "corpus.h"

weak noinline int decision(int value)
{
	opaque(value);
	return value > 2 ? XDP_DROP : XDP_PASS;
}

hidden noinline int helper(int value)
{
	opaque(value);
	return decision(value) + 1;
}

weak noinline hidden int both(int value)
{
	opaque(value);
	return helper(value) + helper(value + 1);
}

weak __u32 weak_variable = 9;
hidden __u32 hidden_variable = 10;

SEC("xdp") int weak_and_hidden(struct xdp_md *ctx)
{
	int value = both(ctx->rx_queue_index) + weak_variable;

	return value > hidden_variable ? decision(value) : XDP_TX;
}

char _license[] SEC("license") = "GPL";
