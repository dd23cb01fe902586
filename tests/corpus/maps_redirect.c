// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The maps that bpf_redirect_map() takes.
#include "corpus.h"

struct {
	ATTR_UINT(type, MAP_DEVMAP);
	ATTR_UINT(max_entries, 8);
	ATTR_UINT(key_size, 4);
	ATTR_UINT(value_size, 4);
} ports SEC(".maps");

struct {
	ATTR_UINT(type, MAP_DEVMAP_HASH);
	ATTR_UINT(max_entries, 8);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, struct devmap_value);
} ports_by_number SEC(".maps");

struct {
	ATTR_UINT(type, MAP_CPUMAP);
	ATTR_UINT(max_entries, 2);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, struct cpumap_value);
} cpus SEC(".maps");

struct {
	ATTR_UINT(type, MAP_XSKMAP);
	ATTR_UINT(max_entries, 64);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} sockets SEC(".maps");

SEC("xdp") int to_port(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, ctx->rx_queue_index, XDP_DROP);
}

SEC("xdp") int to_port_by_number(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports_by_number, ctx->ingress_ifindex, 0);
}

SEC("xdp") int to_cpu(struct xdp_md *ctx)
{
	return bpf_redirect_map(&cpus, 1, XDP_PASS);
}

SEC("xdp") int to_socket(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;

	if (bpf_map_lookup_elem(&sockets, &queue))
		return bpf_redirect_map(&sockets, queue, 0);
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

char _license[] SEC("license") = "GPL";
