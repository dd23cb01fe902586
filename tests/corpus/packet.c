// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What most programs do: bounds checks, a parse, a count per protocol.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_PERCPU_ARRAY);
	ATTR_UINT(max_entries, 256);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} hits SEC(".maps");

const volatile __u16 blocked_protocol = 0xdd86;

SEC("xdp") int packet(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *frame = data;
	__u64 *hit;
	__u32 key;

	if (data + sizeof(*frame) > end)
		return XDP_ABORTED;
	key = frame->protocol >> 8;
	hit = bpf_map_lookup_elem(&hits, &key);
	if (hit)
		*hit += 1;
	return frame->protocol == blocked_protocol ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
