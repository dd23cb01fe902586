// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.17
// compilers: clang zig
// Pointers to static subprograms: for bpf_loop() and bpf_for_each_map_elem().
#include "corpus.h"

struct state {
	__u64 sum;
	__u32 limit;
};

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 16);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} entries SEC(".maps");

static noinline __u64 weigh(__u64 value)
{
	opaque(value);
	return value * 3;
}

static long each_step(__u32 index, void *context)
{
	struct state *state = context;

	state->sum += weigh(index);
	return index > state->limit;
}

static long each_element(void *map, const void *key, void *value, void *context)
{
	struct state *state = context;

	state->sum += weigh(*(__u64 *)value);
	return 0;
}

SEC("xdp") int callbacks(struct xdp_md *ctx)
{
	struct state state = {.limit = 100};

	bpf_loop(10, each_step, &state, 0);
	bpf_for_each_map_elem(&entries, each_element, &state, 0);
	bpf_loop(ctx->rx_queue_index, each_step, &state, 0);
	return state.sum & 1 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
