// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs on tracepoints, with and without types.
#include "corpus.h"

struct net_device;
struct bpf_prog;

struct {
	ATTR_UINT(type, MAP_PERCPU_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} exceptions SEC(".maps");

static noinline int count(__u32 slot)
{
	__u64 *value = bpf_map_lookup_elem(&exceptions, &slot);

	if (value)
		*value += 1;
	return 0;
}

SEC("tp_btf/xdp_exception") int typed(__u64 *ctx)
{
	return count(ctx[2] > XDP_REDIRECT);
}

SEC("raw_tp/xdp_exception") int raw(__u64 *ctx)
{
	return count(0);
}

SEC("raw_tracepoint/xdp_redirect_err") int raw_long_name(__u64 *ctx)
{
	return count(1);
}

char _license[] SEC("license") = "GPL";
