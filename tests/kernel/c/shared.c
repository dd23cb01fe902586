// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Maps that are shared, typed, filled and reached through others.
#include "../../corpus/corpus.h"

struct flow {
	__u32 address;
	__u16 port;
	__u8 name[6];
};

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 8);
	ATTR_UINT(pinning, PIN_BY_NAME);
	ATTR_TYPE(key, struct flow);
	ATTR_TYPE(value, __u64);
} flows SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} hits SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} unused SEC(".maps");

int last(struct xdp_md *ctx);

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, int(struct xdp_md *));
} jumps SEC(".maps") = {
	.values = {[1] = (void *)&last},
};

const volatile __u32 step = 1;
static const char VERSION[] SEC(".rodata.version") = "one";

static inlined void count(void)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&hits, &key);

	if (value)
		*value += step;
}

SEC("xdp") int counting(struct xdp_md *ctx)
{
	struct flow flow = {.address = 1, .port = 2, .name = "fl"};
	__u64 one = 1;

	count();
	bpf_map_update_elem(&flows, &flow, &one, 0);
	return XDP_PASS;
}

SEC("xdp") int jumping(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, 1);
	return XDP_ABORTED;
}

SEC("xdp") int last(struct xdp_md *ctx)
{
	count();
	return XDP_TX;
}

SEC("?xdp") int on_request(struct xdp_md *ctx)
{
	return XDP_DROP + VERSION[0] - 'o';
}

char _license[] SEC("license") = "GPL";
