// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A version section, a proprietary licence, and a function name longer than the kernel's names.
#include "corpus.h"

SEC("xdp") int a_function_name_of_more_than_fifteen_characters(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data > 60 ? XDP_PASS : XDP_DROP;
}

__u32 _version SEC("version") = 0x00060102;
char _license[] SEC("license") = "Proprietary";
