// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the core_*.c programs share. Kernel types are declared by each program itself, with only the
 * members it uses: finding the real ones is the loader's job. */
#ifndef CORE_H
#define CORE_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))

/* enum bpf_core_relo_kind, by the builtin that takes each. */
enum { FIELD_BYTE_OFFSET, FIELD_BYTE_SIZE, FIELD_EXISTS, FIELD_SIGNED, FIELD_LSHIFT_U64, FIELD_RSHIFT_U64 };
enum { TYPE_EXISTS, TYPE_SIZE, TYPE_MATCHES };
enum { TYPE_ID_LOCAL, TYPE_ID_TARGET };
enum { ENUMVAL_EXISTS, ENUMVAL_VALUE };

#define field_info(access, kind) __builtin_preserve_field_info(access, kind)
#define field_offset(access) field_info(access, FIELD_BYTE_OFFSET)
#define field_size(access) field_info(access, FIELD_BYTE_SIZE)
#define field_exists(access) field_info(access, FIELD_EXISTS)
#define type_info(type, kind) __builtin_preserve_type_info(*(typeof(type) *)0, kind)
#define type_exists(type) type_info(type, TYPE_EXISTS)
#define type_size(type) type_info(type, TYPE_SIZE)
#define type_id(type, kind) __builtin_btf_type_id(*(typeof(type) *)0, kind)
#define enum_info(type, value, kind) __builtin_preserve_enum_value(*(typeof(type) *)value, kind)
#define enum_exists(type, value) enum_info(type, value, ENUMVAL_EXISTS)
#define enum_value(type, value) enum_info(type, value, ENUMVAL_VALUE)

/* __builtin_preserve_type_info(…, TYPE_MATCHES) came with clang 15. */
#define HAS_TYPE_MATCHES (__clang_major__ >= 15)

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

enum { ABORTED, DROP, PASS, TX, REDIRECT };

#define RESULTS 64

struct results {
	__u64 value[RESULTS];
};

/* One element: the values that the relocations gave, to be read after a test run. */
struct {
	int (*type)[2]; /* BPF_MAP_TYPE_ARRAY */
	int (*max_entries)[1];
	__u32 *key;
	struct results *value;
} results SEC(".maps");

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;

static inline __attribute__((always_inline)) struct results *find_results(void)
{
	__u32 zero = 0;

	return map_lookup(&results, &zero);
}

#endif
