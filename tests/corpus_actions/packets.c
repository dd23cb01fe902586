// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Actions that depend on the packet, and some that are the packet's.
#include "actions.h"

static inlined struct ethhdr *header(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	return data + sizeof(struct ethhdr) > end ? NULL : data;
}

// actions: ABORTED DROP PASS
SEC("xdp") int by_protocol(struct xdp_md *ctx)
{
	struct ethhdr *eth = header(ctx);

	if (!eth)
		return XDP_ABORTED;
	return eth->protocol == 0xdd86 ? XDP_DROP : XDP_PASS;
}

// actions: any
SEC("xdp") int byte_of_packet(struct xdp_md *ctx)
{
	struct ethhdr *eth = header(ctx);

	return eth ? eth->source[5] : XDP_ABORTED;
}

// actions: ABORTED DROP PASS TX REDIRECT
SEC("xdp") int checked_byte_of_packet(struct xdp_md *ctx)
{
	struct ethhdr *eth = header(ctx);

	if (!eth)
		return XDP_ABORTED;
	return eth->source[5] <= XDP_REDIRECT ? eth->source[5] : XDP_DROP;
}

// actions: ABORTED TX
SEC("xdp") int answers(struct xdp_md *ctx)
{
	struct ethhdr *eth = header(ctx);
	__u8 last;

	if (!eth)
		return XDP_ABORTED;
	last = eth->source[5];
	eth->source[5] = eth->destination[5];
	eth->destination[5] = last;
	return XDP_TX;
}

// actions: DROP PASS
SEC("xdp") int grows_at_the_head(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -16) ? XDP_DROP : XDP_PASS;
}

// actions: DROP PASS
SEC("xdp") int shrinks_at_the_tail(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, -1) ? XDP_DROP : XDP_PASS;
}

// actions: ABORTED PASS
SEC("xdp") int leaves_metadata(struct xdp_md *ctx)
{
	__u32 *mark;

	if (bpf_xdp_adjust_meta(ctx, -4))
		return XDP_ABORTED;
	mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) > (void *)(long)ctx->data)
		return XDP_ABORTED;
	*mark = 42;
	return XDP_PASS;
}

// actions: DROP PASS
// needs: Linux 5.18
SEC("xdp.frags") int in_pieces(struct xdp_md *ctx)
{
	__u8 bytes[4] = {};

	if (bpf_xdp_load_bytes(ctx, 0, bytes, sizeof(bytes)))
		return XDP_DROP;
	return bytes[0] == 7 ? XDP_DROP : XDP_PASS;
}

// actions: any
// needs: Linux 5.18
SEC("xdp") int what_a_helper_read(struct xdp_md *ctx)
{
	__u32 word = XDP_PASS;

	bpf_xdp_load_bytes(ctx, 0, &word, sizeof(word));
	return word;
}

char _license[] SEC("license") = "GPL";
