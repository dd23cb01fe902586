// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Hash tables: struct keys and values, flags, a NUMA node, entries by macro.
#include "corpus.h"

#define FLOWS (1 << 10)

struct flow {
	__u32 source, destination;
	__u16 ports[2];
	__u8 protocol;
	__u8 padding[3];
};

struct counters {
	__u64 packets;
	__u64 bytes;
	struct {
		__u32 first : 12, second : 20;
	} bits;
	__s32 last;
};

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, FLOWS);
	ATTR_TYPE(key, struct flow);
	ATTR_TYPE(value, struct counters);
} flows SEC(".maps");

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(map_flags, F_NO_PREALLOC);
	ATTR_UINT(max_entries, FLOWS * 2);
	ATTR_UINT(numa_node, 0);
	ATTR_TYPE(key, __u64);
	ATTR_TYPE(value, struct counters);
} sparse SEC(".maps");

struct {
	ATTR_UINT(type, MAP_PERCPU_HASH);
	ATTR_UINT(max_entries, 16);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, struct counters);
} per_cpu SEC(".maps");

struct {
	ATTR_UINT(type, MAP_LRU_HASH);
	ATTR_UINT(map_flags, F_NO_COMMON_LRU);
	ATTR_UINT(max_entries, 128);
	ATTR_UINT(key_size, 8);
	ATTR_UINT(value_size, 24);
} recent SEC(".maps");

struct {
	ATTR_UINT(type, MAP_LRU_PERCPU_HASH);
	ATTR_UINT(max_entries, 128);
	ATTR_TYPE(key, enum xdp_action);
	ATTR_TYPE(value, __u8[64]);
} recent_per_cpu SEC(".maps");

SEC("xdp") int maps_hash(struct xdp_md *ctx)
{
	struct flow flow = {.source = ctx->ingress_ifindex, .protocol = 17};
	struct counters fresh = {.packets = 1}, *known;
	__u64 key = ctx->rx_queue_index, large[3] = {};
	__u32 small = XDP_DROP;
	__u8 *bytes;

	known = bpf_map_lookup_elem(&flows, &flow);
	if (known)
		known->bits.first++;
	else
		bpf_map_update_elem(&flows, &flow, &fresh, 0);
	bpf_map_update_elem(&sparse, &key, &fresh, 0);
	bpf_map_delete_elem(&sparse, &key);
	known = bpf_map_lookup_elem(&per_cpu, &small);
	if (known)
		known->packets++;
	bpf_map_update_elem(&recent, &key, large, 0);
	bytes = bpf_map_lookup_elem(&recent_per_cpu, &small);
	return bytes ? bytes[63] & 3 : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
