// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
/* Whole types: id, existence, size, match. */
#include "core.h"

struct list_head {
	struct list_head *next, *prev;
};

struct hlist_node;

struct sk_buff {
	unsigned int len;
	__u16 mac_len;
};

/* Same name, but an incompatible kind or shape. */
union net_device {
	int member;
};

struct xdp_mem_info {
	__u64 type;
	__u32 id;
};

enum xdp_action {
	XDP_ABORTED,
	XDP_DROP,
};

enum no_such_enum {
	NO_SUCH_VALUE,
};

struct no_such_struct {
	int member;
};

typedef struct {
	int counter;
} atomic_t;

typedef long long ktime_t;
typedef unsigned int gfp_t;
typedef int (*no_such_function_t)(int);
struct work_struct;

typedef void (*work_func_t)(struct work_struct *);
/* The kernel's takes one parameter. */
typedef void (*rcu_callback_t)(void *, int);
typedef int no_such_typedef_t;

SEC("xdp")
int types(struct xdp_md *ctx)
{
	struct results *out = find_results();

	if (!out)
		return ABORTED;
	out->value[0] = type_exists(struct sk_buff);
	out->value[1] = type_size(struct sk_buff);
	out->value[2] = type_exists(union net_device);
	out->value[3] = type_size(union net_device);
	out->value[4] = type_exists(struct no_such_struct);
	out->value[5] = type_size(struct no_such_struct);
	out->value[6] = type_exists(enum xdp_action);
	out->value[7] = type_size(enum xdp_action);
	out->value[8] = type_exists(enum no_such_enum);
	out->value[9] = type_exists(atomic_t);
	out->value[10] = type_size(atomic_t);
	out->value[11] = type_exists(ktime_t);
	out->value[12] = type_size(gfp_t);
	out->value[13] = type_exists(work_func_t);
	out->value[14] = type_exists(rcu_callback_t);
	out->value[15] = type_exists(no_such_function_t);
	out->value[16] = type_exists(no_such_typedef_t);
	out->value[17] = type_size(struct list_head);
	return PASS;
}

SEC("xdp")
int type_ids(struct xdp_md *ctx)
{
	struct results *out = find_results();

	if (!out)
		return ABORTED;
	out->value[0] = type_id(struct sk_buff, TYPE_ID_TARGET);
	out->value[1] = type_id(atomic_t, TYPE_ID_TARGET);
	out->value[2] = type_id(struct no_such_struct, TYPE_ID_TARGET);
	out->value[3] = type_id(enum xdp_action, TYPE_ID_TARGET);
	/* Ids within the object's own BTF: the same from any loader. */
	out->value[4] = type_id(struct sk_buff, TYPE_ID_LOCAL);
	out->value[5] = type_id(struct no_such_struct, TYPE_ID_LOCAL);
	out->value[6] = type_id(atomic_t, TYPE_ID_LOCAL);
	return PASS;
}

#if HAS_TYPE_MATCHES
SEC("xdp")
int type_matches(struct xdp_md *ctx)
{
	struct results *out = find_results();

	if (!out)
		return ABORTED;
	out->value[0] = type_info(struct sk_buff, TYPE_MATCHES);
	out->value[1] = type_info(struct list_head, TYPE_MATCHES);
	/* A member that is wider than the kernel's. */
	out->value[2] = type_info(struct xdp_mem_info, TYPE_MATCHES);
	out->value[3] = type_info(union net_device, TYPE_MATCHES);
	out->value[4] = type_info(enum xdp_action, TYPE_MATCHES);
	out->value[5] = type_info(enum no_such_enum, TYPE_MATCHES);
	out->value[6] = type_info(work_func_t, TYPE_MATCHES);
	out->value[7] = type_info(rcu_callback_t, TYPE_MATCHES);
	out->value[8] = type_info(atomic_t, TYPE_MATCHES);
	out->value[9] = type_info(gfp_t, TYPE_MATCHES);
	out->value[10] = type_info(ktime_t, TYPE_MATCHES);
	return PASS;
}
#endif

char _license[] SEC("license") = "GPL";
