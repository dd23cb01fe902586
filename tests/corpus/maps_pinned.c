// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A map that lives in bpffs under its name, and one that says that it does not.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 16);
	ATTR_UINT(pinning, PIN_BY_NAME);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} corpus_shared SEC(".maps");

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 16);
	ATTR_UINT(pinning, PIN_NONE);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} private SEC(".maps");

SEC("xdp") int maps_pinned(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&corpus_shared, &key);

	if (value)
		bpf_map_update_elem(&private, &key, value, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
