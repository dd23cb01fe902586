// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that the verifier refuses, each for a reason with a sure remedy, and maps that it can
// be told apart by.
#include "../../corpus/corpus.h"

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} table SEC(".maps");

SEC("xdp") int unchecked_packet(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data;

	return data[12] == 8 ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int unchecked_null(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u32 *value = bpf_map_lookup_elem(&table, &key);

	return *value;
}

/* Each step doubles the paths that the verifier walks: its log is long. */
SEC("xdp") int long_way_to_a_mistake(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	__u64 seed = bpf_get_prandom_u32(), sum = 0;

	if (data + 64 > end)
		return XDP_DROP;
#pragma unroll
	for (int i = 0; i < 12; i++) {
		if (seed >> i & 1)
			sum += data[i];
		opaque(sum);
	}
	if (sum == 77)
		return data[64];
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
