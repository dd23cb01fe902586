// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// A program array with initial values, tail calls from a program and from a subprogram.
#include "corpus.h"

int target(struct xdp_md *ctx);
int other(struct xdp_md *ctx);

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 8);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, int(struct xdp_md *));
} jumps SEC(".maps") = {
	.values = {[1] = (void *)&target, [5] = (void *)&other},
};

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_UINT(key_size, sizeof(__u32));
	ATTR_UINT(value_size, sizeof(__u32));
} empty_jumps SEC(".maps");

static noinline int jump(struct xdp_md *ctx, __u32 slot)
{
	int result = XDP_ABORTED;

	opaque(slot);
	bpf_tail_call(ctx, &jumps, slot);
	opaque(result);
	return result;
}

SEC("xdp") int constant_slot(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, 1);
	bpf_tail_call(ctx, &empty_jumps, 0);
	return XDP_DROP;
}

SEC("xdp") int from_subprogram(struct xdp_md *ctx)
{
	return jump(ctx, 5) == XDP_TX ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int target(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp") int other(struct xdp_md *ctx)
{
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
