// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.15
// compilers: clang zig
// A timer within a map's value, with a callback.
#include "corpus.h"

struct slot {
	struct bpf_timer timer;
	__u64 fired;
};

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, struct slot);
} timers SEC(".maps");

static int on_timer(void *map, __u32 *key, struct slot *slot)
{
	slot->fired++;
	return 0;
}

SEC("xdp") int timer(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct slot *slot = bpf_map_lookup_elem(&timers, &key);

	if (!slot)
		return XDP_ABORTED;
	bpf_timer_init(&slot->timer, &timers, 1);
	bpf_timer_set_callback(&slot->timer, on_timer);
	bpf_timer_start(&slot->timer, 1000000, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
