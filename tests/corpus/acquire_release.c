// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 6.15
// compilers: clang zig
// Load-acquire and store-release, written as bytes for compilers without them.
#include "corpus.h"

__u64 shared = 1;

SEC("xdp") int acquire_release(struct xdp_md *ctx)
{
	register __u64 value __asm__("r1") = 0;
	register __u64 *where __asm__("r2") = &shared;

	// r1 = load_acquire((u64 *)(r2 + 0)); store_release((u64 *)(r2 + 0), r1)
	__asm__ volatile(".8byte 0x00000100000021db; .8byte 0x00000110000012db"
			 : "+r"(value)
			 : "r"(where)
			 : "memory");
	return value ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
