// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// flags: -g0
// No type information at all: so no maps of one's own, but still sections of data and subprograms.
#include "corpus.h"

const volatile __u32 limit = 3;
static volatile __u32 seen;

static noinline int step(int value)
{
	opaque(value);
	return value + limit;
}

SEC("xdp") int no_btf(struct xdp_md *ctx)
{
	seen++;
	return step(ctx->rx_queue_index) > 5 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
