// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Relocated loads and stores on a packet: through types that the kernel has laid out differently. */
#include "core.h"

struct ethhdr {
	__u16 h_proto;
	unsigned char h_dest[6];
} CORE;

struct iphdr {
	__u32 daddr;
	__u32 saddr;
	/* Wider than the kernel's: an unsigned load may shrink. */
	__u32 tot_len;
	__u64 ttl;
	__u16 check;
} CORE;

struct udphdr {
	__u16 check;
	/* Narrower than the kernel's: an unsigned load may grow. */
	__u8 len;
	/* Signed and wider: no load can be right, it is poisoned, and pruned here. */
	__s32 dest;
	__u16 source;
} CORE;

SEC("xdp")
int memory(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct results *out = find_results();
	struct ethhdr *eth = data;
	struct iphdr *ip = data + 16;
	struct udphdr *udp = data + 40;
	__u32 address;

	if (!out || data + 64 > end)
		return DROP;
	out->value[0] = eth->h_proto;
	out->value[1] = eth->h_dest[3];
	out->value[2] = ip->tot_len;
	out->value[3] = ip->ttl;
	out->value[4] = udp->len;
	out->value[5] = udp->source;
	address = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = address;
	ip->check = 0x1234;
	udp->check = 0;
	if (field_size(udp->dest) == 4)
		out->value[6] = udp->dest;
	return PASS;
}

char _license[] SEC("license") = "GPL";
