// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// An attribute of a map definition that means nothing.
#include "../corpus.h"

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
	ATTR_UINT(colour, 3);
} coloured SEC(".maps");

SEC("xdp") int map_with_unknown_attribute(struct xdp_md *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&coloured, &key) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
