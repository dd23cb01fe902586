// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Tail calls: from main and from subprograms, into arrays that the object fills or does not.
#include "actions.h"

// actions: TX
SEC("xdp") int sends_back(struct xdp_md *ctx)
{
	return XDP_TX;
}

// actions: DROP
SEC("xdp") int drops(struct xdp_md *ctx)
{
	return XDP_DROP;
}

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, int(struct xdp_md *));
} filled SEC(".maps") = {
	.values = {[0] = (void *)&sends_back, [2] = (void *)&drops},
};

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} others_fill SEC(".maps");

// actions: PASS TX
SEC("xdp") int constant_slot(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &filled, 0);
	return XDP_PASS;
}

// actions: PASS
SEC("xdp") int empty_slot(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &filled, 1);
	return XDP_PASS;
}

// actions: DROP PASS TX
SEC("xdp") int variable_slot(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &filled, input(ctx));
	return XDP_PASS;
}

// actions: any
SEC("xdp") int into_the_unknown(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &others_fill, 0);
	return XDP_PASS;
}

static noinline int jump(struct xdp_md *ctx, __u32 slot)
{
	int result = 100;

	bpf_tail_call(ctx, &filled, slot);
	opaque(result);
	return result;
}

// actions: ABORTED DROP PASS
// needs: Linux 5.10
SEC("xdp") int what_a_subprogram_gets_is_no_action(struct xdp_md *ctx)
{
	switch (jump(ctx, input(ctx))) {
	case XDP_TX:
		return XDP_PASS;
	case XDP_DROP:
		return XDP_ABORTED;
	}
	return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
