// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that ask for what no kernel has.
#include "../../corpus/corpus.h"

extern int bpf_no_kernel_has_this(int value) __ksym;
extern const void no_such_symbol __ksym;
extern const int no_such_variable __ksym;
extern void *bpf_rdonly_cast(int one, int two, int three) __ksym;

SEC("xdp") int absent_function(struct xdp_md *ctx)
{
	return bpf_no_kernel_has_this(1);
}

SEC("xdp") int absent_symbol(struct xdp_md *ctx)
{
	__u64 address = (__u64)&no_such_symbol;

	opaque(address);
	return address ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int absent_variable(struct xdp_md *ctx)
{
	__u64 address = (__u64)&no_such_variable;

	opaque(address);
	return address ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int other_prototype(struct xdp_md *ctx)
{
	return bpf_rdonly_cast(1, 2, 3) ? XDP_PASS : XDP_DROP;
}

SEC("tp_btf/no_such_tracepoint") int absent_tracepoint(__u64 *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
