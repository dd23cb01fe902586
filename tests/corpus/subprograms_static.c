// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Static subprograms in .text: called repeatedly, nested, in another order than they are defined.
#include "corpus.h"

static noinline int last(int value)
{
	opaque(value);
	return value + 1;
}

static noinline int middle(int value)
{
	value = last(value) + 1;
	opaque(value);
	return last(value);
}


static noinline int first(int value)
{
	value += middle(value);
	opaque(value);
	value += last(value);
	opaque(value);
	return value + middle(value);
}

SEC("xdp") int subprograms_static(struct xdp_md *ctx)
{
	int value = last(ctx->rx_queue_index);

	value += first(value);
	opaque(value);
	value += middle(value);
	return value & 1 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
