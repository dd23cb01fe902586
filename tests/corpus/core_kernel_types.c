// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* The context as the kernel's own struct: a chain of relocated pointer loads. */
#include "core.h"

struct net_device {
	unsigned int mtu;
	int ifindex;
	unsigned short type;
} CORE;

struct xdp_mem_info {
	__u32 type;
} CORE;

struct xdp_rxq_info {
	__u32 queue_index;
	struct net_device *dev;
	struct xdp_mem_info mem;
} CORE;

struct xdp_buff {
	struct xdp_rxq_info *rxq;
	/* In an anonymous union of the kernel's. */
	__u32 frame_sz;
	__u32 flags;
} CORE;

extern void *bpf_cast_to_kern_ctx(void *ctx) SEC(".ksyms");

SEC("xdp")
int kernel_context(struct xdp_md *ctx)
{
	struct xdp_buff *buff = bpf_cast_to_kern_ctx(ctx);
	struct results *out = find_results();

	if (!out)
		return ABORTED;
	out->value[0] = buff->rxq->dev->mtu;
	out->value[1] = buff->rxq->dev->ifindex;
	out->value[2] = buff->rxq->dev->type;
	out->value[3] = buff->rxq->queue_index;
	out->value[4] = buff->rxq->mem.type;
	out->value[5] = buff->frame_sz;
	out->value[6] = buff->flags;
	return PASS;
}

char _license[] SEC("license") = "GPL";
