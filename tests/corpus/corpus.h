/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the corpus needs of the kernel's interface, so that no system header is needed:
 * a source includes this file and nothing else.
 */
#pragma once

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef _Bool bool;

#define true 1
#define false 0
#define NULL ((void *)0)

#define SEC(name) __attribute__((section(name), used))
#define noinline __attribute__((noinline))
#define inlined inline __attribute__((always_inline))
#define weak __attribute__((weak))
#define hidden __attribute__((visibility("hidden")))
#define aligned(n) __attribute__((aligned(n)))
#define packed __attribute__((packed))

#define __ksym __attribute__((section(".ksyms")))
#define __kconfig __attribute__((section(".kconfig")))

#ifdef __clang__
#define core __attribute__((preserve_access_index))
#define unroll _Pragma("unroll")
#else
#define core
#define unroll
#endif

/* The compiler may not know, nor move, what is behind the variable. */
#define opaque(variable) __asm__ volatile("" : "+r"(variable))
#define barrier() __asm__ volatile("" : : : "memory")

/* A map definition: each attribute is the type of a member. */
#define ATTR_UINT(name, value) int(*name)[value]
#define ATTR_TYPE(name, ...) __typeof__(__VA_ARGS__) *name
#define ATTR_ARRAY(name, ...) __typeof__(__VA_ARGS__) *name[]

enum map_type {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PROG_ARRAY = 3,
	MAP_PERF_EVENT_ARRAY = 4,
	MAP_PERCPU_HASH = 5,
	MAP_PERCPU_ARRAY = 6,
	MAP_STACK_TRACE = 7,
	MAP_LRU_HASH = 9,
	MAP_LRU_PERCPU_HASH = 10,
	MAP_LPM_TRIE = 11,
	MAP_ARRAY_OF_MAPS = 12,
	MAP_HASH_OF_MAPS = 13,
	MAP_DEVMAP = 14,
	MAP_CPUMAP = 16,
	MAP_XSKMAP = 17,
	MAP_QUEUE = 22,
	MAP_STACK = 23,
	MAP_DEVMAP_HASH = 25,
	MAP_RINGBUF = 27,
	MAP_BLOOM_FILTER = 30,
};

enum map_flag {
	F_NO_PREALLOC = 1 << 0,
	F_NO_COMMON_LRU = 1 << 1,
	F_RDONLY_PROG = 1 << 7,
	F_WRONLY_PROG = 1 << 8,
	F_MMAPABLE = 1 << 10,
	F_INNER_MAP = 1 << 12,
};

enum pinning { PIN_NONE, PIN_BY_NAME };

enum xdp_action { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

struct bpf_spin_lock {
	__u32 val;
};

struct bpf_timer {
	__u64 opaque[2];
} aligned(8);

struct bpf_dynptr {
	__u64 opaque[2];
} aligned(8);

struct devmap_value {
	__u32 ifindex;
	__s32 prog_fd;
};

struct cpumap_value {
	__u32 qsize;
	__s32 prog_fd;
};

struct ethhdr {
	__u8 destination[6];
	__u8 source[6];
	__u16 protocol;
} packed;

struct lpm_key {
	__u32 prefixlen;
	__u8 data[4];
};

#ifdef __clang__
#define HELPER(number, result, name, ...) \
	static result (*const name)(__VA_ARGS__) __attribute__((unused)) = (void *)number
#else
#define HELPER(number, result, name, ...) \
	extern result name(__VA_ARGS__) __attribute__((kernel_helper(number)))
#endif

HELPER(1, void *, bpf_map_lookup_elem, void *map, const void *key);
HELPER(2, long, bpf_map_update_elem, void *map, const void *key, const void *value, __u64 flags);
HELPER(3, long, bpf_map_delete_elem, void *map, const void *key);
HELPER(5, __u64, bpf_ktime_get_ns, void);
HELPER(6, long, bpf_trace_printk, const char *format, __u32 size, ...);
HELPER(7, __u32, bpf_get_prandom_u32, void);
HELPER(8, __u32, bpf_get_smp_processor_id, void);
HELPER(12, long, bpf_tail_call, void *ctx, void *array, __u32 index);
HELPER(23, long, bpf_redirect, __u32 ifindex, __u64 flags);
HELPER(25, long, bpf_perf_event_output, void *ctx, void *map, __u64 flags, void *data, __u64 size);
HELPER(44, long, bpf_xdp_adjust_head, struct xdp_md *ctx, int delta);
HELPER(51, long, bpf_redirect_map, void *map, __u64 key, __u64 flags);
HELPER(54, long, bpf_xdp_adjust_meta, struct xdp_md *ctx, int delta);
HELPER(65, long, bpf_xdp_adjust_tail, struct xdp_md *ctx, int delta);
HELPER(87, long, bpf_map_push_elem, void *map, const void *value, __u64 flags);
HELPER(88, long, bpf_map_pop_elem, void *map, void *value);
HELPER(89, long, bpf_map_peek_elem, void *map, void *value);
HELPER(93, long, bpf_spin_lock, struct bpf_spin_lock *lock);
HELPER(94, long, bpf_spin_unlock, struct bpf_spin_lock *lock);
HELPER(118, __u64, bpf_jiffies64, void);
HELPER(130, long, bpf_ringbuf_output, void *ringbuf, void *data, __u64 size, __u64 flags);
HELPER(131, void *, bpf_ringbuf_reserve, void *ringbuf, __u64 size, __u64 flags);
HELPER(132, void, bpf_ringbuf_submit, void *data, __u64 flags);
HELPER(133, void, bpf_ringbuf_discard, void *data, __u64 flags);
HELPER(153, void *, bpf_per_cpu_ptr, const void *percpu, __u32 cpu);
HELPER(154, void *, bpf_this_cpu_ptr, const void *percpu);
HELPER(164, long, bpf_for_each_map_elem, void *map, void *callback, void *context, __u64 flags);
HELPER(165, long, bpf_snprintf, char *out, __u32 size, const char *format, __u64 *data, __u32 length);
HELPER(169, long, bpf_timer_init, struct bpf_timer *timer, void *map, __u64 flags);
HELPER(170, long, bpf_timer_set_callback, struct bpf_timer *timer, void *callback);
HELPER(171, long, bpf_timer_start, struct bpf_timer *timer, __u64 nsecs, __u64 flags);
HELPER(181, long, bpf_loop, __u32 iterations, void *callback, void *context, __u64 flags);
HELPER(182, long, bpf_strncmp, const char *first, __u32 size, const char *second);
HELPER(188, __u64, bpf_xdp_get_buff_len, struct xdp_md *ctx);
HELPER(189, long, bpf_xdp_load_bytes, struct xdp_md *ctx, __u32 offset, void *to, __u32 length);
HELPER(190, long, bpf_xdp_store_bytes, struct xdp_md *ctx, __u32 offset, void *from, __u32 length);
HELPER(195, void *, bpf_map_lookup_percpu_elem, void *map, const void *key, __u32 cpu);
HELPER(201, long, bpf_dynptr_read, void *to, __u32 length, const struct bpf_dynptr *from, __u32 offset, __u64 flags);
