// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Array elements: of structs, of arrays, flexible, out of the kernel's bounds. */
#include "core.h"

struct upid {
	int nr;
	void *ns;
} CORE;

struct pid {
	unsigned int level;
	/* One element in an old kernel, a flexible array today. */
	struct upid numbers[8];
} CORE;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__u32 u6_addr32[4];
	} in6_u;
} CORE;

struct sk_buff {
	char cb[4096];
} CORE;

struct ethhdr {
	unsigned char h_dest[6];
	unsigned char h_source[6];
	__u16 h_proto;
} CORE;

struct __kernel_sockaddr_storage {
	union {
		struct {
			__u16 ss_family;
			char __data[126];
		};
		void *__align;
	};
} CORE;

SEC("xdp")
int arrays(struct xdp_md *ctx)
{
	struct results *out = find_results();
	struct pid *pid = 0;
	struct in6_addr *address = 0;
	struct sk_buff *skb = 0;
	struct ethhdr *eth = 0;
	struct __kernel_sockaddr_storage *storage = 0;

	if (!out)
		return ABORTED;
	out->value[0] = field_offset(pid->numbers[0].nr);
	out->value[1] = field_offset(pid->numbers[5].ns);
	out->value[2] = field_size(pid->numbers[2]);
	out->value[3] = field_offset(address->in6_u.u6_addr32[3]);
	out->value[4] = field_size(address->in6_u.u6_addr32[3]);
	out->value[5] = field_exists(address->in6_u.u6_addr8[15]);
	/* The kernel's is shorter. */
	out->value[6] = field_exists(skb->cb[4000]);
	out->value[7] = field_exists(skb->cb[40]);
	out->value[8] = field_offset(eth[1].h_source[2]);
	out->value[9] = field_offset(eth[3]);
	out->value[10] = field_offset(storage->__data[9]);
	out->value[11] = (__u64)__builtin_preserve_access_index(&eth[2].h_source[4]);
	return PASS;
}

char _license[] SEC("license") = "GPL";
