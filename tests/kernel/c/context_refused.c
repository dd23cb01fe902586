// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What is done with the extended context that cannot be done.
#include <xdpkit.h>

SEC("xdp") int writes(struct xdpkit_md *ctx)
{
	ctx->port_index = 3;
	return XDP_PASS;
}

SEC("xdp") int spans(struct xdpkit_md *ctx)
{
	return *(volatile __u64 *)&ctx->port_index > 7 ? XDP_DROP : XDP_PASS;
}

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} by_port SEC(".maps");

SEC("xdp") int takes_an_address(struct xdpkit_md *ctx)
{
	return bpf_map_lookup_elem(&by_port, &ctx->port_index) ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
