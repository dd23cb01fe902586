// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Global subprograms in .text, verified by themselves; one of them is called by nobody.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} sums SEC(".maps");

__u64 total;

noinline int leaf(__u32 value)
{
	__u64 *sum = bpf_map_lookup_elem(&sums, &value);

	if (sum)
		*sum += value;
	total += value;
	return value & 3;
}

noinline int uncalled(__u32 value)
{
	return leaf(value) + 5;
}

noinline int branch(struct xdp_md *ctx)
{
	return leaf(ctx->ingress_ifindex) + leaf(ctx->rx_queue_index);
}

SEC("xdp") int subprograms_global(struct xdp_md *ctx)
{
	int value = branch(ctx) + leaf(7);

	return value > 3 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
