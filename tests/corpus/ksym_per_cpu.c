// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: a kernel with CONFIG_KALLSYMS_ALL
// compilers: clang zig
// Per-CPU variables of the kernel, with types.
#include "corpus.h"

// The kernel knows what is in it; only the name and the kind must agree.
struct rq {
	int unused;
};

extern const int bpf_prog_active __ksym;
extern const struct rq runqueues __ksym;

SEC("xdp") int ksym_per_cpu(struct xdp_md *ctx)
{
	const int *active = bpf_this_cpu_ptr(&bpf_prog_active);
	const void *queue = bpf_per_cpu_ptr(&runqueues, 0);

	return *active && queue ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
