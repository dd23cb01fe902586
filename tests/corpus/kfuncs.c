// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 6.3
// compilers: clang zig
// Kernel functions: present ones, weak ones that no kernel has, a call from a subprogram.
#include "corpus.h"

struct task_struct;

extern int bpf_dynptr_from_xdp(struct xdp_md *ctx, __u64 flags, struct bpf_dynptr *dynptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *dynptr, __u32 offset, void *buffer, __u32 size) __ksym;
extern int bpf_no_kernel_has_this(int value) __ksym weak;
extern void *bpf_rdonly_cast(const void *object, __u32 type_id) __ksym weak;

static noinline int length_of(struct xdp_md *ctx)
{
	struct bpf_dynptr dynptr;
	struct ethhdr buffer, *frame;

	if (bpf_dynptr_from_xdp(ctx, 0, &dynptr))
		return -1;
	frame = bpf_dynptr_slice(&dynptr, 0, &buffer, sizeof(buffer));
	return frame ? frame->protocol : 0;
}

SEC("xdp") int kfuncs(struct xdp_md *ctx)
{
	if (bpf_no_kernel_has_this)
		return bpf_no_kernel_has_this(3);
	return length_of(ctx) < 0 ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp") int only_weak(struct xdp_md *ctx)
{
	return bpf_rdonly_cast ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
