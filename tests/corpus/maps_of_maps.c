// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Maps that hold maps: with initial values, and without.
#include "corpus.h"

struct inner {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY_OF_MAPS);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, struct inner);
} table SEC(".maps") = {
	.values = {[0] = (void *)&first, [2] = (void *)&second},
};

struct {
	ATTR_UINT(type, MAP_HASH_OF_MAPS);
	ATTR_UINT(max_entries, 4);
	ATTR_UINT(key_size, sizeof(__u64));
	ATTR_ARRAY(values, struct {
		ATTR_UINT(type, MAP_HASH);
		ATTR_UINT(max_entries, 7);
		ATTR_UINT(map_flags, F_NO_PREALLOC);
		ATTR_TYPE(key, __u32);
		ATTR_TYPE(value, __u16);
	});
} table_by_name SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY_OF_MAPS);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, struct {
		ATTR_UINT(type, MAP_ARRAY);
		ATTR_UINT(map_flags, F_INNER_MAP);
		ATTR_UINT(max_entries, 1);
		ATTR_UINT(key_size, 4);
		ATTR_UINT(value_size, 4);
	});
} sized_freely SEC(".maps");

SEC("xdp") int maps_of_maps(struct xdp_md *ctx)
{
	__u32 key = ctx->rx_queue_index, zero = 0;
	__u64 name = ctx->ingress_ifindex, *value;
	void *map = bpf_map_lookup_elem(&table, &key);

	if (map) {
		value = bpf_map_lookup_elem(map, &zero);
		if (value)
			*value += 1;
	}
	value = bpf_map_lookup_elem(&second, &zero);
	if (value)
		*value += 2;
	map = bpf_map_lookup_elem(&table_by_name, &name);
	if (map && bpf_map_lookup_elem(map, &zero))
		return XDP_DROP;
	map = bpf_map_lookup_elem(&sized_freely, &zero);
	return map ? XDP_PASS : XDP_TX;
}

char _license[] SEC("license") = "GPL";
