// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// flags: -g0
// A map definition is read from its type, and there are no types.
#include "../corpus.h"

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} shapeless SEC(".maps");

SEC("xdp") int map_without_btf(struct xdp_md *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&shapeless, &key) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
