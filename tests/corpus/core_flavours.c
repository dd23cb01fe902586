// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Several local declarations of one kernel type, told apart by a ___flavour. */
#include "core.h"

struct net_device___old {
	unsigned int mtu;
	unsigned long priv_flags;
	int no_such_member;
} CORE;

struct net_device___new_layout {
	char name[16];
	struct {
		unsigned int mtu;
	};
	union {
		int ifindex;
		long unrelated;
	};
} CORE;

/* Not a flavour: a separator has exactly three underscores. */
struct net____device {
	unsigned int mtu;
} CORE;

struct xdp_buff___first___second {
	void *data;
} CORE;

enum xdp_action___mine {
	XDP_TX___mine = 55,
};

SEC("xdp")
int flavours(struct xdp_md *ctx)
{
	struct results *out = find_results();
	struct net_device___old *old = 0;
	struct net_device___new_layout *new = 0;
	struct net____device *none = 0;
	struct xdp_buff___first___second *twice = 0;

	if (!out)
		return ABORTED;
	out->value[0] = field_offset(old->mtu);
	out->value[1] = field_offset(new->mtu);
	out->value[2] = field_offset(new->ifindex);
	out->value[3] = field_offset(new->name);
	out->value[4] = field_exists(old->no_such_member);
	out->value[5] = field_exists(none->mtu);
	/* Only the last suffix is a flavour. */
	out->value[6] = field_exists(twice->data);
	out->value[7] = enum_value(enum xdp_action___mine, XDP_TX___mine);
	out->value[8] = type_exists(struct net_device___old);
	out->value[9] = type_size(struct net_device___new_layout);
	return PASS;
}

char _license[] SEC("license") = "GPL";
