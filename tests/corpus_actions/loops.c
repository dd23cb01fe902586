// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Loops and callbacks, which run any number of times.
#include "actions.h"

struct state {
	__u32 action;
	__u32 limit;
};

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 16);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} entries SEC(".maps");

static long drop_at_limit(__u32 index, void *context)
{
	struct state *state = context;

	if (index < state->limit)
		return 0;
	state->action = XDP_DROP;
	return 1;
}

static long take_value(void *map, const void *key, void *value, void *context)
{
	struct state *state = context;

	state->action = *(__u32 *)value;
	return 1;
}

static long returns_an_action(__u32 index, void *context)
{
	return index & 1;
}

// actions: DROP PASS
SEC("xdp") int found_in_a_loop(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	int index;

	for (index = 0; index < 64; index++) {
		__u8 *byte = data + index;

		if ((void *)(byte + 1) > end)
			break;
		if (*byte == 0x42)
			return XDP_DROP;
	}
	return XDP_PASS;
}

// actions: ABORTED DROP PASS TX
SEC("xdp") int counted(struct xdp_md *ctx)
{
	__u32 index = 0, number = input(ctx);

	while (index < 3) {
		opaque(index);
		if (index >= 3 || number == index * 7)
			break;
		index++;
	}
	return index < 3 ? index : XDP_TX;
}

// actions: DROP PASS
// needs: Linux 5.17
SEC("xdp") int by_callback(struct xdp_md *ctx)
{
	struct state state = {XDP_PASS, input(ctx)};

	bpf_loop(4, drop_at_limit, &state, 0);
	return state.action;
}

// actions: any
// needs: Linux 5.17
SEC("xdp") int value_of_an_element(struct xdp_md *ctx)
{
	struct state state = {XDP_PASS, 0};

	bpf_for_each_map_elem(&entries, take_value, &state, 0);
	return state.action;
}

// actions: TX
// needs: Linux 5.17
SEC("xdp") int what_a_callback_returns_is_no_action(struct xdp_md *ctx)
{
	bpf_loop(4, returns_an_action, NULL, 0);
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
