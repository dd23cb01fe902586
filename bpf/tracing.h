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
	__u64 net_cookie; /* Linux 5.12 */
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

/* Whether the running kernel has a member (BPF_FIELD_EXISTS, CO-RE). */
#define EXISTS(member) __builtin_preserve_field_info(member, 2)

/* What the kernel has for the id of a map where bpf_redirect() named an interface. */
#define BY_IFINDEX 0x7fffffff

/* What xdp_redirect_err tells of the way that a packet was to go. */
struct redirect {
	const void *target; /* NULL: not known, or that of a broadcast */
	__s32 error;
	__u32 map_type;
	__u32 map_id;
	__u32 index;
};

static __always_inline int is_devmap(const struct redirect *redirect)
{
	return redirect->map_type == BPF_MAP_TYPE_DEVMAP ||
	       redirect->map_type == BPF_MAP_TYPE_DEVMAP_HASH;
}

/* The interface that a devmap's entry is for, NULL without. */
static __always_inline struct net_device *target_device(const struct redirect *redirect)
{
	const struct bpf_dtab_netdev *entry = redirect->target;
	struct net_device *device = NULL;

	if (is_devmap(redirect) && entry)
		bpf_probe_read_kernel(&device, sizeof(device), &entry->dev);
	return device;
}

/* The index of the interface that a packet was to be redirected to, 0 for none or not known. */
static __always_inline __u32 target_index(const struct redirect *redirect,
					  struct net_device *device)
{
	__u32 ifindex = 0;

	if (redirect->map_type == BPF_MAP_TYPE_UNSPEC)
		return redirect->map_id == BY_IFINDEX ? redirect->index : 0;
	if (device)
		bpf_probe_read_kernel(&ifindex, sizeof(ifindex), &device->ifindex);
	return ifindex;
}

/* Whether a program is that of an entry of a devmap or cpumap. */
static __always_inline int is_in_map(const struct bpf_prog *program)
{
	enum bpf_attach_type type = program->expected_attach_type;

	return type == BPF_XDP_DEVMAP || type == BPF_XDP_CPUMAP;
}

/*
 * The forms that xdp_redirect_err has had. 7 arguments since Linux 5.14: (device, program, target,
 * error, type of map, id of map, index). Verifiers of some kernels do not let the target be read, a
 * `const void *`. 6 arguments since Linux 5.6: (device, program, target, error, map, index); nor do
 * they there.
 */
#define REDIRECT_7(context, its_target)                                                            \
	{                                                                                          \
		.target = its_target,                                                              \
		.error = (context)[3],                                                             \
		.map_type = (context)[4],                                                          \
		.map_id = (context)[5],                                                            \
		.index = (context)[6],                                                             \
	}
#define REDIRECT_6(context, map)                                                                   \
	{                                                                                          \
		.error = (context)[3],                                                             \
		.map_type = (map) ? (map)->map_type : BPF_MAP_TYPE_UNSPEC,                         \
		.map_id = (map) ? (map)->id : BY_IFINDEX,                                          \
		.index = (context)[5],                                                             \
	}

#endif
