// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Constants of 64 bits, multiplications, divisions, shifts, byte swaps.
#include "corpus.h"

SEC("xdp") int constants(struct xdp_md *ctx)
{
	__u64 value = ctx->ingress_ifindex + 0x123456789abcdef0ULL;

	opaque(value);
	value ^= 0xffffffff00000000ULL;
	opaque(value);
	value *= 0x8000000000000001ULL;
	value /= ctx->rx_queue_index + 7;
	value %= 0x7fffffff;
	value += (__s64)value >> 3;
	value ^= __builtin_bswap64(value) + __builtin_bswap32(value) + __builtin_bswap16(value);
	value -= (__u64)-1;
	return (__u32)value % 5 == 2 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
