// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// bpf_throw(): its argument is the action.
#include "actions.h"

extern void bpf_throw(__u64 cookie) __ksym;

static noinline int refuse(__u32 number)
{
	if (number > 3)
		bpf_throw(XDP_DROP);
	return number;
}

// actions: ABORTED PASS
// needs: Linux 6.7
SEC("xdp") int thrown_by_main(struct xdp_md *ctx)
{
	if (input(ctx))
		bpf_throw(XDP_ABORTED);
	return XDP_PASS;
}

// actions: DROP PASS TX
// needs: Linux 6.7
SEC("xdp") int thrown_by_a_subprogram(struct xdp_md *ctx)
{
	return refuse(input(ctx)) ? XDP_TX : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
