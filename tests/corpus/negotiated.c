// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that need different things of an interface, and what they declare.
#include "corpus.h"

static const char declared_tx[] SEC(".xdpkit") = "1 needs:action-tx asks_a_map";
static const char declared_hash[] SEC(".xdpkit") = "1 optional:rx-hash drops";

struct {
	ATTR_UINT(type, MAP_DEVMAP);
	ATTR_UINT(max_entries, 8);
	ATTR_UINT(key_size, 4);
	ATTR_UINT(value_size, 4);
} tx_ports SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} verdicts SEC(".maps");

const volatile __u32 neighbour = 1;

SEC("xdp") int drops(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp") int reflects(struct xdp_md *ctx)
{
	if (ctx->data_end - ctx->data < 64)
		return XDP_DROP;
	return XDP_TX;
}

SEC("xdp") int to_ports(struct xdp_md *ctx)
{
	return bpf_redirect_map(&tx_ports, ctx->rx_queue_index, XDP_DROP);
}

SEC("xdp") int to_neighbour(struct xdp_md *ctx)
{
	return bpf_redirect(neighbour, 0);
}

SEC("xdp") int asks_a_map(struct xdp_md *ctx)
{
	__u32 key = 0, *verdict = bpf_map_lookup_elem(&verdicts, &key);

	return verdict ? (int)*verdict : XDP_ABORTED;
}

SEC("xdp") int mistaken(struct xdp_md *ctx)
{
	return ctx->rx_queue_index ? 42 : XDP_PASS;
}

SEC("xdp.frags") int with_frags(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
