// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A longest-prefix table, which must not be preallocated.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_LPM_TRIE);
	ATTR_UINT(map_flags, F_NO_PREALLOC);
	ATTR_UINT(max_entries, 255);
	ATTR_TYPE(key, struct lpm_key);
	ATTR_TYPE(value, enum xdp_action);
} prefixes SEC(".maps");

SEC("xdp") int maps_lpm(struct xdp_md *ctx)
{
	struct lpm_key key = {.prefixlen = 32, .data = {10, 0, 0, 1}};
	enum xdp_action *action = bpf_map_lookup_elem(&prefixes, &key);

	return action && *action == XDP_DROP ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
