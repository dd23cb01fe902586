// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Actions that are computed.
#include "actions.h"

// actions: DROP PASS
SEC("xdp") int from_one_bit(struct xdp_md *ctx)
{
	return (input(ctx) & 1) + 1;
}

// actions: ABORTED DROP PASS TX
SEC("xdp") int from_two_bits(struct xdp_md *ctx)
{
	return input(ctx) & 3;
}

// actions: ABORTED DROP PASS TX REDIRECT
SEC("xdp") int by_remainder(struct xdp_md *ctx)
{
	return input(ctx) % 5;
}

// actions: PASS TX
SEC("xdp") int by_shift(struct xdp_md *ctx)
{
	__u32 value = input(ctx);

	return 2 | value >> 31;
}

// actions: DROP
SEC("xdp") int only_the_low_half_counts(struct xdp_md *ctx)
{
	__u64 value = (__u64)input(ctx) << 32 | XDP_DROP;

	opaque(value);
	return value & 0xffffffff & 1 ? XDP_DROP : XDP_DROP;
}

// actions: DROP TX
SEC("xdp") int by_exclusive_or(struct xdp_md *ctx)
{
	return (input(ctx) & 2) ^ 1;
}

// actions: ABORTED PASS
SEC("xdp") int by_product(struct xdp_md *ctx)
{
	__u32 bit = input(ctx) & 1;

	opaque(bit);
	return (bit & 1) * XDP_PASS;
}

// actions: PASS TX
SEC("xdp") int swapped(struct xdp_md *ctx)
{
	__u16 value = input(ctx) & 1 ? 0x0200 : 0x0300;

	opaque(value);
	return value == 0x0200 ? __builtin_bswap16(0x0200) : __builtin_bswap16(0x0300);
}

// actions: DROP PASS TX
SEC("xdp") int checked_range(struct xdp_md *ctx)
{
	__u32 value = input(ctx);

	if (value < XDP_DROP || value > XDP_TX)
		return XDP_DROP;
	return value;
}

// actions: ABORTED DROP
SEC("xdp") int signed_range(struct xdp_md *ctx)
{
	int value = input(ctx);

	if (value < 0 || value > 1)
		return XDP_ABORTED;
	return value;
}

char _license[] SEC("license") = "GPL";
