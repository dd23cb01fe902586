// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Buffers for events: a ring buffer, and a perf event array whose size is left to the loader.
#include "corpus.h"

struct event {
	__u64 when;
	__u32 ifindex;
	__u32 queue;
};

struct {
	ATTR_UINT(type, MAP_RINGBUF);
	ATTR_UINT(max_entries, 4096 * 4);
} ring SEC(".maps");

struct {
	ATTR_UINT(type, MAP_PERF_EVENT_ARRAY);
	ATTR_UINT(key_size, sizeof(int));
	ATTR_UINT(value_size, sizeof(int));
} per_cpu_rings SEC(".maps");

SEC("xdp") int reserve(struct xdp_md *ctx)
{
	struct event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);

	if (!event)
		return XDP_DROP;
	event->when = bpf_ktime_get_ns();
	event->ifindex = ctx->ingress_ifindex;
	event->queue = ctx->rx_queue_index;
	bpf_ringbuf_submit(event, 0);
	return XDP_PASS;
}

SEC("xdp") int output(struct xdp_md *ctx)
{
	struct event event = {.when = bpf_ktime_get_ns()};

	bpf_perf_event_output(ctx, &per_cpu_rings, 0xffffffffULL, &event, sizeof(event));
	bpf_ringbuf_output(&ring, &event, sizeof(event), 1);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
