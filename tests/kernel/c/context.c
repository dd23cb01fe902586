// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that write down what they read of the extended context, each in its own kind of place.
#include <xdpkit.h>

volatile __u64 seen;

static __always_inline int note(__u64 value)
{
	seen = value;
	return XDP_PASS;
}

/* Each field, in main */

SEC("xdp") int port_index(struct xdpkit_md *ctx)
{
	return note(ctx->port_index);
}

SEC("xdp") int cookie(struct xdpkit_md *ctx)
{
	return note(ctx->cookie);
}

SEC("xdp") int frame_len(struct xdpkit_md *ctx)
{
	return note(ctx->frame_len);
}

SEC("xdp.frags") int frame_len_frags(struct xdpkit_md *ctx)
{
	return note(ctx->frame_len);
}

/* The values are those of the moment when the program was entered. */
SEC("xdp") int frame_len_later(struct xdpkit_md *ctx)
{
	if (bpf_xdp_adjust_head(ctx, 20))
		return XDP_ABORTED;
	return note(ctx->frame_len);
}

SEC("xdp") int all(struct xdpkit_md *ctx)
{
	return note(ctx->cookie << 32 | ctx->frame_len << 8 | ctx->port_index);
}

SEC("xdp") int none(struct xdpkit_md *ctx)
{
	return note(ctx->data_end - ctx->data);
}

/* The bytes of the cookie, from the fourth to the seventh, by loads of one and of two. */
SEC("xdp") int narrow(struct xdpkit_md *ctx)
{
	volatile __u8 *bytes = (void *)&ctx->cookie;
	volatile __u16 *halves = (void *)&ctx->cookie;

	return note((__u64)bytes[3] << 24 | (__u32)halves[2] << 8 | bytes[6]);
}

/* The same with what is found out when the program is entered. */
SEC("xdp") int narrow_kept(struct xdpkit_md *ctx)
{
	volatile __u8 *port = (void *)&ctx->port_index;
	volatile __u16 *length = (void *)&ctx->frame_len;

	return note((__u64)port[1] << 32 | (__u32)port[0] << 16 | length[0]);
}

/* In other functions */

static __noinline int port_below(struct xdpkit_md *ctx, __u64 above)
{
	return note(above << 32 | ctx->port_index);
}

SEC("xdp") int port_in_static(struct xdpkit_md *ctx)
{
	port_below(ctx, 1);
	return port_below(ctx, 2);
}

static __noinline int length_below(struct xdpkit_md *ctx, __u64 above)
{
	return note(above << 32 | ctx->frame_len);
}

SEC("xdp") int length_in_static(struct xdpkit_md *ctx)
{
	return length_below(ctx, 3);
}

__noinline int port_in_global_function(struct xdpkit_md *ctx)
{
	return note(ctx->port_index);
}

SEC("xdp") int port_in_global(struct xdpkit_md *ctx)
{
	return port_in_global_function(ctx);
}

struct held {
	struct xdpkit_md *ctx;
};

static long read_port(__u32 index, struct held *held)
{
	note(held->ctx->port_index);
	return 0;
}

SEC("xdp") int port_in_callback(struct xdpkit_md *ctx)
{
	struct held held = { ctx };

	bpf_loop(1, read_port, &held, 0);
	return XDP_PASS;
}

static long read_length(__u32 index, struct held *held)
{
	note(held->ctx->frame_len);
	return 0;
}

SEC("xdp") int length_in_callback(struct xdpkit_md *ctx)
{
	struct held held = { ctx };

	bpf_loop(1, read_length, &held, 0);
	return XDP_PASS;
}

/* Behind a tail call */

SEC("xdp") int leaf(struct xdpkit_md *ctx)
{
	return note(ctx->cookie << 32 | ctx->port_index);
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(struct xdpkit_md *));
} leaves SEC(".maps") = { .values = { &leaf } };

SEC("xdp") int tail_call(struct xdpkit_md *ctx)
{
	bpf_tail_call(ctx, &leaves, 0);
	return XDP_ABORTED;
}

/* Where the frame leaves */

SEC("xdp/devmap") int port_of_egress(struct xdpkit_md *ctx)
{
	note(ctx->port_index);
	return XDP_DROP;
}

/* With a port table's maps */

XDPKIT_PORTS;
XDPKIT_PORT_SET(guests);

SEC("xdp") int by_table(struct xdpkit_md *ctx)
{
	note((__u64)xdpkit_port_of(ctx->ingress_ifindex) << 32 | ctx->port_index);
	if (ctx->port_index == 9)
		return xdpkit_redirect_to_set(guests);
	return xdpkit_redirect_to_port(ctx->port_index);
}

char _license[] SEC("license") = "GPL";
