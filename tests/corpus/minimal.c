// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The least there is: one program without maps, variables or subprograms.
#include "corpus.h"

SEC("xdp") int minimal(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
