/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What programs on tracepoints look at in the kernel. Only names matter here: where each member is,
 * the loader finds out when it loads the program (CO-RE).
 */
#ifndef TRACING_H
#define TRACING_H

#include <xdpkit.h>

/* Of include/uapi/linux/bpf.h: programs of the entries of maps. */
enum bpf_attach_type {
	BPF_XDP_DEVMAP = 33,
	BPF_XDP_CPUMAP = 35,
};

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct ns_common {
	__u32 inum;
} KERNEL_TYPE;

struct net {
	struct ns_common ns;
} KERNEL_TYPE;

typedef struct {
	struct net *net;
} KERNEL_TYPE possible_net_t;

struct net_device {
	char name[16];
	int ifindex;
	possible_net_t nd_net;
} KERNEL_TYPE;

struct bpf_prog_aux {
	__u32 id;
	char name[16];
} KERNEL_TYPE;

struct bpf_prog {
	enum bpf_attach_type expected_attach_type;
	struct bpf_prog_aux *aux;
} KERNEL_TYPE;

struct bpf_map {
	__u32 id;
	enum bpf_map_type map_type;
} KERNEL_TYPE;

struct xdp_cpumap_stats {
	unsigned int redirect;
	unsigned int pass;
	unsigned int drop;
} KERNEL_TYPE;

/* What the target of a redirect into a devmap is; an entry of kernel/bpf/devmap.c. */
struct bpf_dtab_netdev {
	struct net_device *dev;
} KERNEL_TYPE;

XDPKIT_HELPER(113, long, bpf_probe_read_kernel, void *to, __u32 size, const void *from);
XDPKIT_HELPER(115, long, bpf_probe_read_kernel_str, void *to, __u32 size, const void *from);

/* The arguments of a tracepoint, each in 8 bytes. */
#define ARGUMENT(type, context, number) ((type)(context)[number])

#endif
