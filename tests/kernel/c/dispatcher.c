// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What libxdp's dispatcher is recognised by, its name and its settings, and nothing of what it
// does. VERSION says of which dispatcher the settings are.
#include "../../corpus/corpus.h"

#define SLOTS 10

struct settings {
#if VERSION > 1
	__u8 magic;
	__u8 version;
#endif
	__u8 count;
#if VERSION > 1
	__u8 frags;
#endif
	__u32 chain_call[SLOTS];
	__u32 priority[SLOTS];
#if VERSION > 1
	__u32 flags[SLOTS];
#endif
#if VERSION > 2
	__u8 bound;
#endif
};

const volatile struct settings settings = {};

ATTR_UINT(dispatcher_version, VERSION) SEC("xdp_metadata");

SEC("xdp") int xdp_dispatcher(struct xdp_md *ctx)
{
	return settings.count ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int another_name(struct xdp_md *ctx)
{
	return settings.count ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
