// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Bitfields that the kernel has elsewhere than the program's declaration says. */
#include "core.h"

struct sk_buff {
	__u8 pkt_type : 3;
	__u8 cloned : 1;
	__u32 ip_summed : 2;
	__u16 csum_level : 2;
	/* A whole byte here, one bit in the kernel. */
	__u8 encapsulation;
} CORE;

struct net_device {
	unsigned long lltx : 1;
	unsigned long netmem_tx : 1;
	unsigned long long priv_flags : 32;
} CORE;

struct tcphdr {
	__u16 source;
	__u16 dest;
	__u32 seq;
	__u32 ack_seq;
	__u16 syn : 1;
	__u16 doff : 4;
	__u16 fin : 1;
} CORE;

struct task_struct {
	unsigned in_execve : 1;
	unsigned sched_reset_on_fork : 1;
	int signed_bits : 3;
} CORE;

#define BITFIELD(out, slot, access)                                   \
	do {                                                          \
		(out)->value[slot] = field_offset(access);            \
		(out)->value[slot + 1] = field_size(access);          \
		(out)->value[slot + 2] = field_info(access, FIELD_LSHIFT_U64); \
		(out)->value[slot + 3] = field_info(access, FIELD_RSHIFT_U64); \
		(out)->value[slot + 4] = field_info(access, FIELD_SIGNED);     \
	} while (0)

SEC("xdp")
int bitfields(struct xdp_md *ctx)
{
	struct results *out = find_results();
	struct sk_buff *skb = 0;
	struct net_device *dev = 0;
	struct tcphdr *tcp = 0;
	struct task_struct *task = 0;

	if (!out)
		return ABORTED;
	BITFIELD(out, 0, skb->pkt_type);
	BITFIELD(out, 5, skb->cloned);
	BITFIELD(out, 10, skb->ip_summed);
	BITFIELD(out, 15, skb->csum_level);
	BITFIELD(out, 20, dev->lltx);
	BITFIELD(out, 25, dev->netmem_tx);
	BITFIELD(out, 30, dev->priv_flags);
	BITFIELD(out, 35, tcp->doff);
	BITFIELD(out, 40, task->sched_reset_on_fork);
	out->value[45] = field_exists(task->signed_bits);
	out->value[46] = field_exists(skb->encapsulation);
	out->value[47] = field_size(skb->encapsulation);
	out->value[48] = field_info(skb->encapsulation, FIELD_RSHIFT_U64);
	return PASS;
}

/* The usual way to read a relocatable bitfield: load the bytes around it, shift twice. */
SEC("xdp")
int read_bitfield(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct results *out = find_results();
	struct tcphdr *tcp = data;
	__u64 value = 0;
	void *at;

	if (!out || data + 64 > end)
		return DROP;
	at = data + field_offset(tcp->doff);
	switch (field_size(tcp->doff)) {
	case 1:
		value = *(__u8 *)at;
		break;
	case 2:
		value = *(__u16 *)at;
		break;
	case 4:
		value = *(__u32 *)at;
		break;
	}
	value <<= field_info(tcp->doff, FIELD_LSHIFT_U64);
	value >>= field_info(tcp->doff, FIELD_RSHIFT_U64);
	out->value[0] = value;
	return PASS;
}

char _license[] SEC("license") = "GPL";
