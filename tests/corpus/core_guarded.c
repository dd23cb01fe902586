// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Relocations that cannot be resolved, in code that the verifier prunes because an existence check
 * says so: each poisoned form must be acceptable as dead code. */
#include "core.h"

enum xdp_action {
	XDP_NO_SUCH_ACTION = 9,
};

struct iphdr {
	__u8 no_such_byte;
	__u32 no_such_word;
	__u8 ttl;
} CORE;

struct no_such_struct {
	int member;
} CORE;

SEC("xdp")
int guarded(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct results *out = find_results();
	struct no_such_struct *none = data;
	struct iphdr *ip = data;

	if (!out || data + 64 > end)
		return DROP;
	/* A load. */
	if (field_exists(ip->no_such_byte))
		out->value[0] = ip->no_such_byte;
	/* A store of a register, a store of a constant. */
	if (field_exists(ip->no_such_word)) {
		ip->no_such_word = ctx->rx_queue_index;
		ip->no_such_word = 7;
	}
	/* A 64-bit immediate: two slots. */
	if (enum_exists(enum xdp_action, XDP_NO_SUCH_ACTION))
		out->value[1] = enum_value(enum xdp_action, XDP_NO_SUCH_ACTION);
	/* An addition, and values of every other kind. */
	if (type_exists(struct no_such_struct)) {
		out->value[2] = field_offset(none->member);
		out->value[3] = field_size(none->member);
		out->value[4] = field_info(none->member, FIELD_SIGNED);
		out->value[5] = field_info(none->member, FIELD_LSHIFT_U64);
		out->value[6] = field_info(none->member, FIELD_RSHIFT_U64);
		out->value[7] = (__u64)__builtin_preserve_access_index(&none->member);
	}
	if (field_exists(ip->ttl))
		out->value[8] = ip->ttl;
	return PASS;
}

char _license[] SEC("license") = "GPL";
