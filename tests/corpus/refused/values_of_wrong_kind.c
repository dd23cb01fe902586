// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A program array whose initial value is a map.
#include "../corpus.h"

struct array {
	ATTR_UINT(type, MAP_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} array SEC(".maps");

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 1);
	ATTR_UINT(key_size, 4);
	int (*values[])(struct xdp_md *);
} jumps SEC(".maps") = {.values = {[0] = (void *)&array}};

SEC("xdp") int values_of_wrong_kind(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
