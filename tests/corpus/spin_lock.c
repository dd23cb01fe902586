// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// A spin lock within a map's value: the kernel finds it by BTF.
#include "corpus.h"

struct guarded {
	struct bpf_spin_lock lock;
	__u32 padding;
	__u64 packets, bytes;
};

struct {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, struct guarded);
} totals SEC(".maps");

SEC("xdp") int spin_lock(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct guarded *total = bpf_map_lookup_elem(&totals, &key);
	__u64 length = ctx->data_end - ctx->data;

	if (!total)
		return XDP_ABORTED;
	bpf_spin_lock(&total->lock);
	total->packets++;
	total->bytes += length;
	bpf_spin_unlock(&total->lock);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
