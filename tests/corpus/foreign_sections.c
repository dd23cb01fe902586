// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs of kinds that are no business of an XDP loader, beside one that is.
#include "corpus.h"

SEC("kprobe/do_nothing") int probe(void *ctx)
{
	return 0;
}

SEC("classifier") int classify(void *ctx)
{
	return 0;
}

SEC("tc") int shape(void *ctx)
{
	return 0;
}

SEC("something_of_my_own") __u32 private_data[2] = {1, 2};

SEC("xdp") int ours(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
