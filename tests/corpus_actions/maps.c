// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Actions that come from maps, and constants that only look like it.
#include "actions.h"

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} verdicts SEC(".maps");

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 16);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} hits SEC(".maps");

struct {
	ATTR_UINT(type, MAP_QUEUE);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(value, __u32);
} pending SEC(".maps");

const volatile __u32 configured = XDP_TX;
const volatile __u32 table[8] = {1, 2, 1, 2, 2, 2, 1, 1};
__u32 changeable = XDP_PASS;
__u32 zeroed;

// actions: any
SEC("xdp") int value_of_map(struct xdp_md *ctx)
{
	__u32 key = input(ctx), *value = bpf_map_lookup_elem(&verdicts, &key);

	return value ? *value : XDP_ABORTED;
}

// actions: ABORTED DROP PASS TX REDIRECT
SEC("xdp") int checked_value_of_map(struct xdp_md *ctx)
{
	__u32 key = 0, *value = bpf_map_lookup_elem(&verdicts, &key), action;

	if (!value)
		return XDP_ABORTED;
	action = *value;
	return action > XDP_REDIRECT ? XDP_DROP : action;
}

// actions: ABORTED DROP TX
SEC("xdp") int by_value_of_map(struct xdp_md *ctx)
{
	__u32 key = 1, *value = bpf_map_lookup_elem(&verdicts, &key);

	if (!value)
		return XDP_ABORTED;
	switch (*value) {
	case 1:
		return XDP_DROP;
	case 2:
		return XDP_TX;
	}
	return XDP_ABORTED;
}

// actions: DROP PASS
SEC("xdp") int counts(struct xdp_md *ctx)
{
	__u32 key = input(ctx);
	__u64 one = 1, *value = bpf_map_lookup_elem(&hits, &key);

	if (value) {
		__sync_fetch_and_add(value, 1);
		return XDP_DROP;
	}
	bpf_map_update_elem(&hits, &key, &one, 0);
	return XDP_PASS;
}

// actions: any
SEC("xdp") int popped(struct xdp_md *ctx)
{
	__u32 value = XDP_PASS;

	bpf_map_pop_elem(&pending, &value);
	return value;
}

// actions: DROP PASS
SEC("xdp") int action_beside_a_key(struct xdp_md *ctx)
{
	volatile __u32 action = input(ctx) ? XDP_DROP : XDP_PASS;
	__u32 key = 3;

	bpf_map_delete_elem(&hits, &key);
	return action;
}

// actions: TX
SEC("xdp") int constant_variable(struct xdp_md *ctx)
{
	return configured;
}

// actions: DROP
SEC("xdp") int dead_branch(struct xdp_md *ctx)
{
	return configured == XDP_TX ? XDP_DROP : XDP_PASS;
}

// actions: DROP PASS
SEC("xdp") int table_lookup(struct xdp_md *ctx)
{
	return table[input(ctx) & 7];
}

// actions: any
SEC("xdp") int variable(struct xdp_md *ctx)
{
	return *(volatile __u32 *)&changeable;
}

// actions: any
SEC("xdp") int zeroed_variable(struct xdp_md *ctx)
{
	return *(volatile __u32 *)&zeroed;
}

// actions: ABORTED DROP PASS
SEC("xdp") int update_failed(struct xdp_md *ctx)
{
	__u32 key = input(ctx);
	__u64 value = 7;

	if (bpf_map_update_elem(&hits, &key, &value, 1))
		return XDP_ABORTED;
	return key & 1 ? XDP_DROP : XDP_PASS;
}

// actions: any
SEC("xdp") int result_of_update(struct xdp_md *ctx)
{
	__u32 key = input(ctx);
	__u64 value = 7;

	return bpf_map_update_elem(&hits, &key, &value, 1);
}

char _license[] SEC("license") = "GPL";
