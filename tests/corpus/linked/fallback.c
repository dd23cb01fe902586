// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Linked with override.c: a weak function that the other file replaces, and one that it does not.
#include "../corpus.h"

extern __u32 shared_counter;

int supplied_elsewhere(int value);

weak noinline int decision(int value)
{
	opaque(value);
	return value > 2 ? XDP_DROP : XDP_PASS;
}

weak noinline int kept(int value)
{
	opaque(value);
	return value + 40;
}

static noinline int same_name(int value)
{
	opaque(value);
	return value + 1;
}

SEC("xdp") int linked(struct xdp_md *ctx)
{
	int value = ctx->rx_queue_index;

	shared_counter++;
	return decision(value) + kept(value) + same_name(value) + supplied_elsewhere(value);
}

char _license[] SEC("license") = "GPL";
