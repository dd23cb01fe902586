// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Actions that are kept on the stack.
#include "actions.h"

struct verdict {
	__u8 flag;
	__u16 code;
	__u32 action;
};

// actions: DROP PASS
SEC("xdp") int spilled(struct xdp_md *ctx)
{
	volatile int action = XDP_PASS;

	if (input(ctx))
		action = XDP_DROP;
	return action;
}

// actions: DROP TX
SEC("xdp") int in_a_byte(struct xdp_md *ctx)
{
	volatile __u8 action = input(ctx) ? XDP_DROP : XDP_TX;

	return action;
}

// actions: PASS
SEC("xdp") int one_of_two_halves(struct xdp_md *ctx)
{
	volatile __u32 halves[2] = {input(ctx), XDP_PASS};

	return halves[1];
}

// actions: PASS TX
SEC("xdp") int byte_of_a_word(struct xdp_md *ctx)
{
	volatile union {
		__u32 word;
		__u8 bytes[4];
	} both = {.word = input(ctx) ? 0x00020101 : 0x00030100};

	return both.bytes[2];
}

static noinline void decide(struct verdict *verdict, __u32 number)
{
	verdict->action = number > 3 ? XDP_DROP : XDP_PASS;
	verdict->code = number;
}

// actions: DROP PASS
SEC("xdp") int by_a_subprogram(struct xdp_md *ctx)
{
	struct verdict verdict = {};

	decide(&verdict, input(ctx));
	return verdict.action;
}

// actions: DROP TX 77
SEC("xdp") int by_index(struct xdp_md *ctx)
{
	volatile int actions[3] = {XDP_DROP, XDP_TX, 77};
	__u32 index = input(ctx);

	if (index > 2)
		index = 0;
	return actions[index];
}

// actions: DROP REDIRECT
SEC("xdp") int by_pointer(struct xdp_md *ctx)
{
	volatile int first = XDP_DROP, second = XDP_REDIRECT;
	volatile int *chosen = input(ctx) ? &first : &second;

	return *chosen;
}

char _license[] SEC("license") = "GPL";
