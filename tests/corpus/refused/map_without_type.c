// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A map definition that does not say what kind of map it is.
#include "../corpus.h"

struct {
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} untyped SEC(".maps");

SEC("xdp") int map_without_type(struct xdp_md *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&untyped, &key) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
