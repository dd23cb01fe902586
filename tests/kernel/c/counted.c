// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that return what the packet says, themselves or by a program that they tail-call.
#include "../../corpus/corpus.h"

/* What is behind the Ethernet header: what to return, and which way to go. */
#define ACTION 14
#define WAY 15

static inlined __u8 byte(struct xdp_md *ctx, int at)
{
	__u8 *data = (void *)(long)ctx->data;

	return data + at + 1 > (__u8 *)(long)ctx->data_end ? XDP_PASS : data[at];
}

SEC("xdp") int by_packet(struct xdp_md *ctx)
{
	return byte(ctx, ACTION);
}

SEC("xdp.frags") int by_large_packet(struct xdp_md *ctx)
{
	return byte(ctx, ACTION);
}

SEC("xdp") int leaf(struct xdp_md *ctx)
{
	return byte(ctx, ACTION);
}

SEC("xdp") int other_leaf(struct xdp_md *ctx)
{
	return byte(ctx, ACTION);
}

#define PROG_ARRAY(name, ...)                       \
	struct {                                    \
		ATTR_UINT(type, MAP_PROG_ARRAY);    \
		ATTR_UINT(max_entries, 4);          \
		ATTR_TYPE(key, __u32);              \
		ATTR_ARRAY(values, int(struct xdp_md *)); \
	} name SEC(".maps") = {.values = {__VA_ARGS__}}

PROG_ARRAY(by_main, [1] = (void *)&leaf, [2] = (void *)&other_leaf);
PROG_ARRAY(by_subprogram, [1] = (void *)&leaf);
PROG_ARRAY(by_both, [1] = (void *)&leaf);

SEC("xdp") int from_main(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &by_main, byte(ctx, WAY));
	return XDP_ABORTED;
}

static noinline int jump(struct xdp_md *ctx)
{
	int result = XDP_ABORTED;

	bpf_tail_call(ctx, &by_subprogram, 1);
	opaque(result);
	return result;
}

SEC("xdp") int from_subprogram(struct xdp_md *ctx)
{
	return jump(ctx) == XDP_TX ? XDP_DROP : XDP_PASS;
}

static noinline int jump_as_main_does(struct xdp_md *ctx)
{
	int result = XDP_ABORTED;

	bpf_tail_call(ctx, &by_both, 1);
	opaque(result);
	return result;
}

SEC("xdp") int from_both(struct xdp_md *ctx)
{
	if (byte(ctx, WAY)) {
		bpf_tail_call(ctx, &by_both, 1);
		return XDP_ABORTED;
	}
	return jump_as_main_does(ctx) == XDP_TX ? XDP_DROP : XDP_PASS;
}

PROG_ARRAY(by_caller, [0] = (void *)&from_both);

SEC("xdp") int to_from_both(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &by_caller, 0);
	return XDP_ABORTED;
}

char _license[] SEC("license") = "GPL";
