// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A callback of one's own for bpf_throw(), named by a tag: libbpf knows it from 1.3 on.
#include "../corpus.h"

extern void bpf_throw(__u64 cookie) __ksym;

int thrown = -1;

noinline int on_throw(__u64 cookie)
{
	thrown = cookie;
	return XDP_TX;
}

SEC("xdp") __attribute__((btf_decl_tag("exception_callback:on_throw")))
int exception_callback(struct xdp_md *ctx)
{
	if (ctx->ingress_ifindex < 1000)
		bpf_throw(33);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
