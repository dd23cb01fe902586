// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A variable that holds an address: nothing could fill it in.
#include "../corpus.h"

static volatile __u32 target = 1;
volatile __u32 *volatile pointer = &target;

SEC("xdp") int pointer_in_data(struct xdp_md *ctx)
{
	return pointer == &target ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
