// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Offset, size and existence of fields: plain, nested, anonymous, renamed, absent. */
#include "core.h"

struct sk_buff;

struct list_head {
	struct list_head *next, *prev;
} CORE;

struct net_device_stats {
	unsigned long rx_packets;
	unsigned long tx_dropped;
} CORE;

struct net_device {
	unsigned int mtu;
	char name[16];
	int ifindex;
	struct net_device_stats stats;
	struct list_head dev_list;
	long no_such_member;
} CORE;

struct sk_buff {
	/* The kernel has these two within anonymous unions and structs. */
	struct net_device *dev;
	__u16 protocol;
	unsigned int len;
	/* The kernel's is 48 bytes long. */
	char cb[40];
	unsigned char *head;
	/* The kernel's is a bitfield. */
	__u32 no_such_bit : 1;
	/* The kernel's is an integer: a pointer is not compatible with it. */
	void *truesize;
} CORE;

struct no_such_struct {
	int member;
} CORE;

SEC("xdp")
int fields(struct xdp_md *ctx)
{
	struct results *out = find_results();
	struct sk_buff *skb = 0;
	struct net_device *dev = 0;
	struct no_such_struct *none = 0;

	if (!out)
		return ABORTED;
	out->value[0] = field_offset(skb->len);
	out->value[1] = field_size(skb->len);
	out->value[2] = field_exists(skb->len);
	out->value[3] = field_offset(skb->dev);
	out->value[4] = field_offset(skb->protocol);
	out->value[5] = field_size(skb->protocol);
	out->value[6] = field_size(skb->cb);
	out->value[7] = field_offset(skb->cb[7]);
	out->value[8] = field_offset(skb->head);
	out->value[9] = field_exists(skb->no_such_bit);
	out->value[10] = field_exists(skb->truesize);
	out->value[11] = field_offset(dev->mtu);
	out->value[12] = field_size(dev->name);
	out->value[13] = field_offset(dev->stats.tx_dropped);
	out->value[14] = field_offset(dev->dev_list.prev);
	out->value[15] = field_exists(dev->no_such_member);
	out->value[16] = field_exists(dev->stats.rx_packets);
	out->value[17] = field_info(dev->ifindex, FIELD_SIGNED);
	out->value[18] = field_info(dev->mtu, FIELD_SIGNED);
	out->value[19] = field_info(dev->mtu, FIELD_LSHIFT_U64);
	out->value[20] = field_info(dev->mtu, FIELD_RSHIFT_U64);
	out->value[21] = field_exists(none->member);
	out->value[22] = (__u64)__builtin_preserve_access_index(&dev->stats.tx_dropped);
	out->value[23] = (__u64)__builtin_preserve_access_index(&skb->cb[3]);
	return PASS;
}

char _license[] SEC("license") = "GPL";
