// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Actions that atomic operations return.
#include "actions.h"

__u32 shared;

// actions: any
// needs: Linux 5.12
SEC("xdp") int fetched(struct xdp_md *ctx)
{
	return __sync_fetch_and_add(&shared, 1);
}

// actions: DROP PASS
// needs: Linux 5.12
SEC("xdp") int exchanged(struct xdp_md *ctx)
{
	return __sync_lock_test_and_set(&shared, 1) == 1 ? XDP_DROP : XDP_PASS;
}

// actions: any
// needs: Linux 5.12
SEC("xdp") int compared(struct xdp_md *ctx)
{
	return __sync_val_compare_and_swap(&shared, 1, 2);
}

// actions: DROP PASS TX
// needs: Linux 5.12
SEC("xdp") int compared_and_checked(struct xdp_md *ctx)
{
	__u32 old = __sync_val_compare_and_swap(&shared, 1, 2);

	return old == 1 ? XDP_DROP : old == 2 ? XDP_PASS : XDP_TX;
}

char _license[] SEC("license") = "GPL";
