// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that leave it to run time which part of their stack they use, and read a field all the same.
#include <xdpkit.h>

volatile __u64 seen;

static __noinline __u64 sum(const volatile __u8 *bytes)
{
	__u64 found = 0;
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < 16; i++)
		found += bytes[i];
	return found;
}

/* An array that a function with a loop is handed. */
SEC("xdp") int handed_to_a_loop(struct xdpkit_md *ctx)
{
	volatile __u8 bytes[16] = { 1, 2, 3 };

	seen = sum(bytes) << 32 | ctx->frame_len;
	return XDP_PASS;
}

/* A place that the packet chooses; the field is read when it was written. */
SEC("xdp") int stored_at_an_index(struct xdpkit_md *ctx)
{
	volatile __u8 bytes[64] = {};
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < 64; i++)
		bytes[i] = 9;
	bytes[ctx->rx_queue_index & 63] = 5;
	seen = (__u64)bytes[0] << 40 | (__u64)bytes[1] << 32 | ctx->frame_len;
	return XDP_PASS;
}

/* What the field is decides which part of the stack is used. */
SEC("xdp") int stored_where_the_field_says(struct xdpkit_md *ctx)
{
	volatile __u8 bytes[128] = {};
	__u32 length = ctx->frame_len;

	if (length > 64 && length <= 100) {
		bytes[length - 64] = 7;
		bytes[(ctx->port_index + length) & 127] = 8;
	}
	seen = (__u64)bytes[36] << 40 | (__u64)bytes[107] << 32 | ctx->frame_len;
	return XDP_PASS;
}

static __noinline __u64 length_and_sum(struct xdpkit_md *ctx, const volatile __u8 *bytes)
{
	volatile __u8 own[32] = {};

	own[ctx->rx_queue_index & 31] = 4;
	return (sum(bytes) + own[0]) << 32 | ctx->frame_len;
}

SEC("xdp") int in_a_subprogram(struct xdpkit_md *ctx)
{
	volatile __u8 bytes[16] = { 1, 2 };

	seen = length_and_sum(ctx, bytes);
	return XDP_PASS;
}

/* The two fill what there is. */
static __noinline __u64 sixteen_bytes(__u32 place)
{
	volatile __u8 bytes[16] = {};

	bytes[place & 15] = 1;
	return bytes[0];
}

SEC("xdp") int full(struct xdpkit_md *ctx)
{
	volatile __u8 bytes[496] = {};

	bytes[ctx->rx_queue_index & 255] = 3;
	seen = bytes[0] + sixteen_bytes(ctx->frame_len);
	return XDP_PASS;
}

/* Kernel functions that the function calls leave its arguments alone. */

extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;

static __noinline int length_under_lock(struct xdpkit_md *ctx)
{
	if (bpf_rcu_read_lock && bpf_rcu_read_unlock) {
		bpf_rcu_read_lock();
		bpf_rcu_read_unlock();
	}
	return ctx->frame_len;
}

SEC("xdp") int beside_a_kernel_function(struct xdpkit_md *ctx)
{
	seen = length_under_lock(ctx);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
