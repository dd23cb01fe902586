// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.8
// Programs for a program array and a devmap that are filled after the load.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 2);
	ATTR_UINT(key_size, 4);
	ATTR_UINT(value_size, 4);
} steps SEC(".maps");

struct {
	ATTR_UINT(type, MAP_DEVMAP);
	ATTR_UINT(max_entries, 2);
	ATTR_UINT(key_size, 4);
	ATTR_UINT(value_size, 8);
} ports SEC(".maps");

SEC("xdp") int enter(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &steps, 0);
	return bpf_redirect_map(&ports, 0, XDP_PASS);
}

SEC("xdp") int passes(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp") int reflects(struct xdp_md *ctx)
{
	return XDP_TX;
}

SEC("xdp/devmap") int leaves(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp/devmap") int turns_back(struct xdp_md *ctx)
{
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
