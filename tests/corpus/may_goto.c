// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 6.9
// compilers: clang zig
// A loop that the kernel bounds: may_goto, written as bytes for compilers without it.
#include "corpus.h"

__u64 rounds;

SEC("xdp") int may_goto(struct xdp_md *ctx)
{
	__u64 count = 0;

	for (;;) {
		// may_goto +1: out of the loop over the jump that goes on with it.
		__asm__ goto volatile(".8byte 0x00000000000100e5; goto %l[on]" : : : : on);
		break;
on:
		if (count++ > ctx->rx_queue_index)
			break;
	}
	rounds += count;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
