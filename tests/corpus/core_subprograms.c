// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Relocations in subprograms: static ones in .text and a global one in the program's section. */
#include "core.h"

struct ethhdr {
	__u16 h_proto;
	unsigned char h_source[6];
} CORE;

struct sk_buff {
	unsigned int len;
	unsigned int data_len;
} CORE;

enum xdp_action {
	XDP_PASS = 42,
	XDP_DROP = 43,
};

static __attribute__((noinline)) __u32 offset_of_len(__u32 queue)
{
	struct sk_buff *skb = 0;

	return queue + field_offset(skb->len);
}

static __attribute__((noinline)) __u32 offsets(__u32 queue)
{
	struct sk_buff *skb = 0;

	return offset_of_len(queue) + field_offset(skb->data_len);
}

__attribute__((noinline)) int protocol_of(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if (data + 14 > end)
		return 0;
	return eth->h_proto;
}

SEC("xdp")
int first(struct xdp_md *ctx)
{
	if (offsets(ctx->rx_queue_index) == 0 || protocol_of(ctx) == 0x1234)
		return enum_value(enum xdp_action, XDP_DROP);
	return enum_value(enum xdp_action, XDP_PASS);
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	return protocol_of(ctx) ? enum_value(enum xdp_action, XDP_PASS) :
				  enum_value(enum xdp_action, XDP_DROP);
}

char _license[] SEC("license") = "GPL";
