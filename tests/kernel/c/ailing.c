// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that fail in each of the ways that can be diagnosed.
#include "../../corpus/corpus.h"

/* What is behind the Ethernet header: what to do. */
#define WISH 14

static inlined __u8 wish(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;

	return data + WISH + 1 > (__u8 *)(long)ctx->data_end ? XDP_PASS : data[WISH];
}

/* A number by an instruction of its own: the compiler would move it to another line. */
#define exactly(number)                                            \
	({                                                         \
		int result_;                                       \
		__asm__ volatile("%0 = " #number : "=r"(result_)); \
		result_;                                           \
	})

SEC("xdp") int firewall(struct xdp_md *ctx)
{
	__u8 what = wish(ctx);

	if (what == 42)
		return exactly(42);
	if (what == 0)
		return exactly(0); /* XDP_ABORTED */
	return XDP_PASS;
}

SEC("xdp") int anything(struct xdp_md *ctx)
{
	return wish(ctx);
}

struct {
	ATTR_UINT(type, MAP_DEVMAP);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} ports SEC(".maps");

SEC("xdp") int router(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, wish(ctx), 0);
}

struct {
	ATTR_UINT(type, MAP_DEVMAP_HASH);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} sparse_ports SEC(".maps");

SEC("xdp") int sparse_router(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sparse_ports, wish(ctx), 0);
}

SEC("xdp") int echo(struct xdp_md *ctx)
{
	return XDP_TX;
}

SEC("xdp") int leaf(struct xdp_md *ctx)
{
	return XDP_DROP;
}

struct {
	ATTR_UINT(type, MAP_PROG_ARRAY);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_ARRAY(values, int(struct xdp_md *));
} stages SEC(".maps") = {.values = {[1] = (void *)&leaf}};

SEC("xdp") int pipeline(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &stages, 1);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
