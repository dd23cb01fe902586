// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A tail call within a tail call: the first program does not use the second array itself.
#include "../../corpus/corpus.h"

int leaf(struct xdp_md *ctx);
int middle(struct xdp_md *ctx);

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, int(struct xdp_md *));
} inner SEC(".maps") = {
	.values = {[0] = (void *)&leaf},
};

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, int(struct xdp_md *));
} outer SEC(".maps") = {
	.values = {[0] = (void *)&middle},
};

SEC("xdp") int leaf(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp") int middle(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &inner, 0);
	return XDP_PASS;
}

SEC("xdp") int first(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &outer, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
