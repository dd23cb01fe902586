// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 6.6
// flags: -mcpu=v4
// compilers: clang>=18 zig
// Instruction set version 4: sign-extending moves and loads, unconditional swaps, signed division.
#include "corpus.h"

static volatile __s8 byte = -3;
static volatile __s16 half = -300;
static volatile __s32 word = -70000;

SEC("xdp") int v4(struct xdp_md *ctx)
{
	__s64 sum = byte + half + (__s64)word;
	__s32 divisor = (__s32)ctx->rx_queue_index - 5;
	__u64 swapped = __builtin_bswap64(sum) + __builtin_bswap32(sum) + __builtin_bswap16(sum);

	opaque(sum);
	sum += (__s8)sum + (__s64)(__s16)swapped;
	if (divisor)
		sum = sum / divisor + (__s32)sum % divisor;
	return sum & 1 ? XDP_DROP : XDP_PASS;
}

SEC("xdp") int far_jump(struct xdp_md *ctx)
{
	__asm__ goto volatile("gotol %l[out]" : : : : out);
	return XDP_DROP;
out:
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
