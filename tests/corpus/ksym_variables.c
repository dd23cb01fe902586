// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.10
// compilers: clang zig
// Symbols of the kernel by address alone, and weak ones that no kernel has.
#include "corpus.h"

extern const void xdp_do_redirect __ksym;
extern const void bpf_prog_put __ksym weak;
extern const void no_such_symbol __ksym weak;
extern const int no_such_typed __ksym weak;

__u64 address;

static noinline int absent(void)
{
	return &no_such_symbol || &no_such_typed;
}

SEC("xdp") int ksym_variables(struct xdp_md *ctx)
{
	address = (__u64)&xdp_do_redirect;
	if (absent() || !&bpf_prog_put)
		return XDP_ABORTED;
	return address ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
