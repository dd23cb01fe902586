// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Two programs that count what they see, each in a map of its own.
#include "../../corpus/corpus.h"

struct {
	ATTR_UINT(type, MAP_PERCPU_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} seen_by_one SEC(".maps"), seen_by_other SEC(".maps");

static inlined int count(void *seen)
{
	__u32 key = 0;
	__u64 *packets = bpf_map_lookup_elem(seen, &key);

	if (packets)
		++*packets;
	return XDP_DROP;
}

SEC("xdp") int one(struct xdp_md *ctx)
{
	return count(&seen_by_one);
}

SEC("xdp") int other(struct xdp_md *ctx)
{
	return count(&seen_by_other);
}

char _license[] SEC("license") = "GPL";
