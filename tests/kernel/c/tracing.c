// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs for a tracepoint that a test can fire: XDP_ABORTED does.
#include "../../corpus/corpus.h"

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u64);
} seen SEC(".maps");

static inlined int count(__u32 key)
{
	__u64 *value = bpf_map_lookup_elem(&seen, &key);

	if (value)
		*value += 1;
	return 0;
}

SEC("tp_btf/xdp_exception") int typed(__u64 *ctx)
{
	return count(0);
}

SEC("raw_tp/xdp_exception") int raw(__u64 *ctx)
{
	return count(1);
}

char _license[] SEC("license") = "GPL";
