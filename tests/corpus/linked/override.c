// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Linked with fallback.c: what that declares, and a strong function in place of its weak one.
#include "../corpus.h"

__u32 shared_counter = 100;

static noinline int same_name(int value)
{
	opaque(value);
	return value * 3;
}

noinline int supplied_elsewhere(int value)
{
	opaque(value);
	return same_name(value) + 2;
}

noinline int decision(int value)
{
	opaque(value);
	return value > 5 ? XDP_TX : XDP_ABORTED;
}

SEC("xdp") int second_program(struct xdp_md *ctx)
{
	return decision(ctx->ingress_ifindex) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
