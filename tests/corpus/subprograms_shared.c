// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Several programs that share subprograms, each in its own order; two sections, one with two programs.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_PERCPU_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} counts SEC(".maps");

static noinline void count(__u32 slot)
{
	__u64 *value = bpf_map_lookup_elem(&counts, &slot);

	if (value)
		*value += 1;
}

static noinline int classify(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	count(0);
	if (data + 1 > end)
		return XDP_ABORTED;
	return *(__u8 *)data & 1 ? XDP_DROP : XDP_PASS;
}

noinline int decide(__u32 value)
{
	count(1);
	return value > 5 ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int one(struct xdp_md *ctx)
{
	int action = classify(ctx);

	return action == XDP_DROP ? action : decide(ctx->rx_queue_index);
}

SEC("xdp") int two(struct xdp_md *ctx)
{
	count(0);
	return decide(ctx->ingress_ifindex) == XDP_PASS ? classify(ctx) : XDP_TX;
}

SEC("xdp.frags") int three(struct xdp_md *ctx)
{
	return classify(ctx);
}

SEC("xdp.frags") int four(struct xdp_md *ctx)
{
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
