// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that tell which port they are, and such that redirect to ports.
#include <xdpkit.h>

XDPKIT_PORTS;
XDPKIT_PORT_SET(guests);

struct told {
	__u32 ifindex;
	__u32 queue;
	__u32 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct told);
	__type(value, __u64);
} frames SEC(".maps");

/* An EtherType for local experiments (IEEE 802): what else the stack sends is not counted. */
static __always_inline int is_ours(struct xdpkit_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	return (void *)(eth + 1) <= (void *)(long)ctx->data_end && eth->h_proto == bpf_htons(0x88B5);
}

static __always_inline int tell(struct xdpkit_md *ctx, __u32 port)
{
	struct told told = {ctx->ingress_ifindex, ctx->rx_queue_index, port};
	__u64 one = 1, *count;

	if (!is_ours(ctx))
		return XDP_PASS;
	count = bpf_map_lookup_elem(&frames, &told);
	if (count)
		__sync_fetch_and_add(count, 1);
	else if (bpf_map_update_elem(&frames, &told, &one, BPF_NOEXIST))
		return XDP_ABORTED;
	return XDP_PASS;
}

SEC("xdp") int port(struct xdpkit_md *ctx)
{
	return tell(ctx, ctx->port_index);
}

/* Tells the same as 1000 more. */
SEC("xdp") int port_later(struct xdpkit_md *ctx)
{
	return tell(ctx, ctx->port_index + 1000);
}

SEC("xdp") int cookie(struct xdpkit_md *ctx)
{
	return tell(ctx, ctx->cookie);
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} next SEC(".maps") = {
	.values = {(void *)&port},
};

/* Reads nothing of xdpkit's, but what it calls does. */
SEC("xdp") int calls_port(struct xdpkit_md *ctx)
{
	bpf_tail_call(ctx, &next, 0);
	return XDP_ABORTED;
}

SEC("xdp") int to_others(struct xdpkit_md *ctx)
{
	return is_ours(ctx) ? xdpkit_redirect_to_others() : XDP_PASS;
}

SEC("xdp.frags") int to_others_in_pieces(struct xdpkit_md *ctx)
{
	return is_ours(ctx) ? xdpkit_redirect_to_others() : XDP_PASS;
}

SEC("xdp") int to_guests(struct xdpkit_md *ctx)
{
	return is_ours(ctx) ? xdpkit_redirect_to_set(guests) : XDP_PASS;
}

SEC("xdp") int plain(struct xdpkit_md *ctx)
{
	return XDP_PASS;
}

/* Uses the table, but nothing in it that sends. */
SEC("xdp.frags") int plain_in_pieces(struct xdpkit_md *ctx)
{
	return xdpkit_port_of(ctx->ingress_ifindex) == XDPKIT_NO_PORT ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
