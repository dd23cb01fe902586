// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// needs: Linux 5.17
// String literals, which compilers put in .rodata.str1.1, and a constant table in .rodata.
#include "corpus.h"

static const __u64 weights[8] = {3, 1, 4, 1, 5, 9, 2, 6};
const char greeting[] = "named string";

SEC("xdp") int strings(struct xdp_md *ctx)
{
	const char *text = ctx->rx_queue_index ? "first literal\n" : "second one\n";
	__u64 arguments[2] = {ctx->ingress_ifindex, 0};
	char out[32];

	arguments[1] = weights[ctx->rx_queue_index & 7];
	bpf_snprintf(out, sizeof(out), "interface %llu weighs %llu", arguments, sizeof(arguments));
	bpf_trace_printk("literal %d\n", sizeof("literal %d\n"), 7);
	bpf_trace_printk(greeting, sizeof(greeting));
	return bpf_strncmp(out, 5, "first") ? text[0] & 1 : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
