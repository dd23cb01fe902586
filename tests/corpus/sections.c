// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.18
// Each section name that makes an XDP program.
#include "corpus.h"

#define PROGRAM(section, name, result)          \
	SEC(section) int name(struct xdp_md *ctx) \
	{                                         \
		return result;                    \
	}

PROGRAM("xdp", on_interface, XDP_PASS)
PROGRAM("xdp.frags", on_interface_frags, bpf_xdp_get_buff_len(ctx) > 1500 ? XDP_DROP : XDP_PASS)
PROGRAM("xdp/devmap", on_devmap, ctx->egress_ifindex == 1 ? XDP_DROP : XDP_PASS)
PROGRAM("xdp/cpumap", on_cpumap, ctx->ingress_ifindex == 1 ? XDP_DROP : XDP_PASS)
PROGRAM("xdp.frags/devmap", on_devmap_frags, ctx->egress_ifindex == 2 ? XDP_DROP : XDP_PASS)
PROGRAM("xdp.frags/cpumap", on_cpumap_frags, ctx->ingress_ifindex == 2 ? XDP_DROP : XDP_PASS)
// Loaded only when it is asked for.
PROGRAM("?xdp", on_request, XDP_TX)

char _license[] SEC("license") = "GPL";
