// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Built with a later xdpkit.h, in which the context has one more field.
#define xdpkit_md xdpkit_md_of_now
#include <xdpkit.h>
#undef xdpkit_md

struct xdpkit_md {
	__u32 data;
	__u8 the_kernels[1020];

	__u32 port_index;
	__u32 frame_len;
	__u64 cookie;
	__u64 reserved[6];
	__u32 phase_of_the_moon;
};

SEC("xdp") int reads_what_is_to_come(struct xdpkit_md *ctx)
{
	return ctx->phase_of_the_moon ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
