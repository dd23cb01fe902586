// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.16
// Maps without keys: queue, stack, and a bloom filter with its number of hashes in map_extra.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_QUEUE);
	ATTR_UINT(max_entries, 32);
	ATTR_TYPE(value, __u64);
} queue SEC(".maps");

struct {
	ATTR_UINT(type, MAP_STACK);
	ATTR_UINT(max_entries, 32);
	ATTR_UINT(value_size, 8);
} stack SEC(".maps");

struct {
	ATTR_UINT(type, MAP_BLOOM_FILTER);
	ATTR_UINT(max_entries, 1000);
	ATTR_UINT(map_extra, 3);
	ATTR_TYPE(value, __u64);
} seen SEC(".maps");

SEC("xdp") int maps_queue(struct xdp_md *ctx)
{
	__u64 value = ctx->ingress_ifindex;

	if (bpf_map_peek_elem(&seen, &value))
		bpf_map_push_elem(&seen, &value, 0);
	bpf_map_push_elem(&queue, &value, 0);
	bpf_map_push_elem(&stack, &value, 2);
	if (bpf_map_pop_elem(&queue, &value) || bpf_map_peek_elem(&stack, &value))
		return XDP_DROP;
	return value & 1 ? XDP_PASS : XDP_TX;
}

char _license[] SEC("license") = "GPL";
