// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Arrays: sizes without types, flags, an unused map, one that several places refer to.
#include "corpus.h"

typedef struct {
	__u32 words[4];
} quad;

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 4);
	ATTR_UINT(key_size, sizeof(__u32));
	ATTR_UINT(value_size, 40);
} untyped SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(map_flags, F_MMAPABLE);
	ATTR_UINT(max_entries, 3);
	ATTR_TYPE(key, int);
	ATTR_TYPE(value, quad);
} mapped SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(map_flags, F_RDONLY_PROG);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, const volatile unsigned long long);
} read_only SEC(".maps");

struct {
	ATTR_UINT(type, MAP_PERCPU_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32[3]);
} per_cpu SEC(".maps");

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, char);
} nobody_uses_this SEC(".maps");

SEC("xdp") int maps_array(struct xdp_md *ctx)
{
	__u32 key = ctx->rx_queue_index & 3;
	quad *four = bpf_map_lookup_elem(&mapped, &key);
	__u32 *words = bpf_map_lookup_elem(&untyped, &key);
	__u64 *constant = bpf_map_lookup_elem(&read_only, &key);
	__u32 *mine = bpf_map_lookup_elem(&per_cpu, &key);
	quad *again;

	key++;
	again = bpf_map_lookup_elem(&mapped, &key);
	if (!four || !words || !constant || !mine || !again)
		return XDP_ABORTED;
	words[9] = four->words[1] + again->words[2] + *constant;
	mine[2]++;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
