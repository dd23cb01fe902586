// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Data sections under names of one's own: each becomes a map.
#include "corpus.h"

__u32 plain = 1;
__u32 in_custom SEC(".data.custom") = 2;
static volatile __u64 also_in_custom SEC(".data.custom") = 3;
__u32 in_another SEC(".data.another_one_with_a_long_name") = 4;
const volatile __u32 in_rodata_custom SEC(".rodata.custom") = 5;
__u32 in_bss_custom[3] SEC(".bss.custom");
__u32 in_bss_second SEC(".bss.second");

SEC("xdp") int custom_sections(struct xdp_md *ctx)
{
	in_custom += plain;
	also_in_custom += in_another;
	in_bss_custom[2] = in_rodata_custom;
	in_bss_second++;
	return in_custom ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
