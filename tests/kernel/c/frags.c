// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A program for packets of many pages.
#include "../../corpus/corpus.h"

SEC("xdp.frags") int length_of(struct xdp_md *ctx)
{
	return bpf_xdp_get_buff_len(ctx);
}

char _license[] SEC("license") = "GPL";
