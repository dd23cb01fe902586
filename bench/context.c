// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that compare a number and drop the packet: one of their own, or one of their context.
#include <xdpkit.h>

static __always_inline int compare(__u64 number)
{
	/* The compiler may not know what comes of it. */
	asm volatile("" : "+r"(number));
	return number == 12345 ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int without(struct xdpkit_md *ctx)
{
	return compare(1);
}

SEC("xdp") int port_index(struct xdpkit_md *ctx)
{
	return compare(ctx->port_index);
}

SEC("xdp") int cookie(struct xdpkit_md *ctx)
{
	return compare(ctx->cookie);
}

SEC("xdp") int frame_len(struct xdpkit_md *ctx)
{
	return compare(ctx->frame_len);
}

SEC("xdp.frags") int without_frags(struct xdpkit_md *ctx)
{
	return compare(1);
}

SEC("xdp.frags") int frame_len_frags(struct xdpkit_md *ctx)
{
	return compare(ctx->frame_len);
}

/* What a program would do without the field. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} numbers SEC(".maps");

SEC("xdp") int by_hand(struct xdpkit_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	__u32 *number = bpf_map_lookup_elem(&numbers, &ifindex);

	return compare(number ? *number : XDPKIT_NO_PORT);
}

char _license[] SEC("license") = "GPL";
