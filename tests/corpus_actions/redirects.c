// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Redirects, and the actions that their flags name.
#include "actions.h"

struct {
	ATTR_UINT(type, MAP_DEVMAP);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} ports SEC(".maps");

struct {
	ATTR_UINT(type, MAP_DEVMAP_HASH);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} ports_by_number SEC(".maps");

struct {
	ATTR_UINT(type, MAP_CPUMAP);
	ATTR_UINT(max_entries, 1);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} cpus SEC(".maps");

struct {
	ATTR_UINT(type, 17); /* XSKMAP */
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, __u32);
	ATTR_TYPE(value, __u32);
} sockets SEC(".maps");

// actions: REDIRECT
SEC("xdp") int to_interface(struct xdp_md *ctx)
{
	return bpf_redirect(1, 0);
}

// actions: ABORTED
SEC("xdp") int with_a_flag_that_is_none(struct xdp_md *ctx)
{
	return bpf_redirect(1, 1);
}

// actions: ABORTED REDIRECT
SEC("xdp") int with_some_flag(struct xdp_md *ctx)
{
	return bpf_redirect(1, input(ctx));
}

// actions: ABORTED REDIRECT
SEC("xdp") int else_aborted(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, input(ctx), 0);
}

// actions: PASS REDIRECT
SEC("xdp") int else_passed(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports_by_number, input(ctx), XDP_PASS);
}

// actions: TX REDIRECT
SEC("xdp") int else_sent_back(struct xdp_md *ctx)
{
	return bpf_redirect_map(&cpus, 0, XDP_TX);
}

// actions: ABORTED
SEC("xdp") int with_bad_flags(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sockets, 0, 4);
}

// actions: REDIRECT
// needs: Linux 5.14
SEC("xdp") int to_all(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, 0, 8 | 16);
}

// actions: DROP PASS REDIRECT
SEC("xdp") int with_one_of_two_flags(struct xdp_md *ctx)
{
	__u64 flags = input(ctx) & 1 ? XDP_DROP : XDP_PASS;

	opaque(flags);
	return bpf_redirect_map(&ports, 0, flags & 1 ? XDP_DROP : XDP_PASS);
}

// actions: DROP PASS
SEC("xdp") int result_thrown_away(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, 0, XDP_PASS) == XDP_REDIRECT ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
