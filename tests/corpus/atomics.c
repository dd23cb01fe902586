// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.12
// compilers: clang zig
// Atomic instructions, 32 and 64 bits, with and without the old value.
#include "corpus.h"

__u64 wide;
__u32 narrow;

SEC("xdp") int atomics(struct xdp_md *ctx)
{
	__u64 old = __sync_fetch_and_add(&wide, 1);

	__sync_fetch_and_add(&narrow, 2);
	old += __sync_fetch_and_or(&wide, 0x10);
	old += __sync_fetch_and_and(&wide, 0xff);
	old += __sync_fetch_and_xor(&narrow, 5);
	old += __sync_lock_test_and_set(&wide, old);
	old += __sync_val_compare_and_swap(&narrow, 3, 4);
	__sync_fetch_and_xor(&wide, 1);
	return old & 1 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
