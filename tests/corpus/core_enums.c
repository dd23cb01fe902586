// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Enumerators: renumbered, absent, 64 bits wide, of a flavoured enum. */
#include "core.h"

enum xdp_action {
	XDP_PASS = 100,
	XDP_NO_SUCH_ACTION = 101,
};

enum bpf_map_type {
	BPF_MAP_TYPE_XSKMAP = 1,
	BPF_MAP_TYPE_RINGBUF = 2,
	BPF_MAP_TYPE_DEVMAP___second = 3,
};

enum pid_type___flavoured {
	PIDTYPE_SID = 77,
};

/* 64 bits wide in the kernel; an older compiler or a smaller value makes it 32 bits here. */
enum blake2b_iv {
	BLAKE2B_IV0 = 1,
	BLAKE2B_IV7 = 0x123456789abcdefULL,
};

enum perf_callchain_context {
	PERF_CONTEXT_MAX = 5,
};

enum no_such_enum {
	NO_SUCH_VALUE = 1,
};

SEC("xdp")
int enums(struct xdp_md *ctx)
{
	struct results *out = find_results();

	if (!out)
		return ABORTED;
	out->value[0] = enum_exists(enum xdp_action, XDP_PASS);
	out->value[1] = enum_value(enum xdp_action, XDP_PASS);
	out->value[2] = enum_exists(enum xdp_action, XDP_NO_SUCH_ACTION);
	out->value[3] = enum_value(enum bpf_map_type, BPF_MAP_TYPE_XSKMAP);
	out->value[4] = enum_value(enum bpf_map_type, BPF_MAP_TYPE_RINGBUF);
	out->value[5] = enum_value(enum bpf_map_type, BPF_MAP_TYPE_DEVMAP___second);
	out->value[6] = enum_value(enum pid_type___flavoured, PIDTYPE_SID);
	out->value[7] = enum_exists(enum no_such_enum, NO_SUCH_VALUE);
	out->value[8] = enum_value(enum perf_callchain_context, PERF_CONTEXT_MAX);
#if __clang_major__ >= 15
	/* BTF of 64-bit enums came with clang 15. */
	out->value[9] = enum_value(enum blake2b_iv, BLAKE2B_IV0);
	out->value[10] = enum_value(enum blake2b_iv, BLAKE2B_IV7);
#endif
	return PASS;
}

char _license[] SEC("license") = "GPL";
