// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 6.7
// compilers: clang zig
// bpf_throw(), from a program and from a subprogram, with the default exception callback.
#include "corpus.h"

extern void bpf_throw(__u64 cookie) __ksym;

noinline int refuse(__u32 value)
{
	if (value > 100)
		bpf_throw(XDP_DROP);
	return value;
}

SEC("xdp") int exceptions(struct xdp_md *ctx)
{
	if (ctx->data_end == ctx->data)
		bpf_throw(XDP_ABORTED);
	return refuse(ctx->rx_queue_index) ? XDP_TX : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
