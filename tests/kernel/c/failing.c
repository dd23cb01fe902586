// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A program that fails for every packet, and one that is told so and does nothing about it.
#include "../../corpus/corpus.h"

SEC("xdp") int aborts(struct xdp_md *ctx)
{
	return XDP_ABORTED;
}

SEC("tp_btf/xdp_exception") int empty(__u64 *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
