// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Actions that subprograms choose.
#include "actions.h"

static noinline int choose(__u32 number)
{
	opaque(number);
	return number > 7 ? XDP_TX : XDP_DROP;
}

static noinline int same(int action)
{
	opaque(action);
	return action;
}

static noinline int either(int flag, int first, int second)
{
	opaque(first);
	return flag ? first : second;
}

noinline int of_everybody(__u32 number)
{
	opaque(number);
	return number & 1 ? XDP_PASS : XDP_DROP;
}

static noinline int thousands(__u32 number)
{
	opaque(number);
	return number & 1 ? 1000 : 2000;
}

static noinline int deeper(__u32 number)
{
	return choose(number) == XDP_TX ? XDP_PASS : same(XDP_ABORTED);
}

// actions: DROP TX
SEC("xdp") int chosen(struct xdp_md *ctx)
{
	return choose(input(ctx));
}

// actions: PASS TX
SEC("xdp") int handed_through(struct xdp_md *ctx)
{
	return input(ctx) ? same(XDP_PASS) : same(XDP_TX);
}

// actions: DROP PASS
SEC("xdp") int one_of_two(struct xdp_md *ctx)
{
	return either(input(ctx) & 1, XDP_DROP, XDP_PASS);
}

// actions: DROP PASS
SEC("xdp") int global(struct xdp_md *ctx)
{
	return of_everybody(input(ctx));
}

// actions: DROP PASS
SEC("xdp") int not_what_it_returns(struct xdp_md *ctx)
{
	return thousands(input(ctx)) == 1000 ? XDP_DROP : XDP_PASS;
}

// actions: ABORTED PASS
SEC("xdp") int nested(struct xdp_md *ctx)
{
	return deeper(input(ctx));
}

char _license[] SEC("license") = "GPL";
