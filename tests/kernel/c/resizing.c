// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that change the packet, and one that returns what it was given.
#include "../../corpus/corpus.h"

SEC("xdp") int grow_front(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -64) ? XDP_ABORTED : XDP_TX;
}

SEC("xdp") int grow_back(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, 200) ? XDP_ABORTED : XDP_TX;
}

SEC("xdp") int shrink(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, -50) ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp") int mark(struct xdp_md *ctx)
{
	__u32 *meta;

	if (bpf_xdp_adjust_meta(ctx, -4))
		return XDP_ABORTED;
	meta = (__u32 *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_ABORTED;
	*meta = 0x31323334;
	return XDP_PASS;
}

SEC("xdp") int queue_of(struct xdp_md *ctx)
{
	return 100 * ctx->ingress_ifindex + ctx->rx_queue_index;
}

char _license[] SEC("license") = "GPL";
