// SPDX-License-Identifier: BSD-2-Clause
/*
 * xdpkit.h: all that the C source of an XDP program needs, in one header.
 *
 *     #include <xdpkit.h>
 *
 *     SEC("xdp") int drop_all(struct xdp_md *ctx) { return XDP_DROP; }
 *     char _license[] SEC("license") = "Dual BSD/GPL";
 *
 * It includes nothing, so neither kernel headers nor libbpf's have to be installed. Names and
 * numbers are the kernel's. Where both are wanted, include <linux/...>, vmlinux.h and
 * <bpf/bpf_helpers.h> first: what they declare is then not declared again.
 */
#ifndef XDPKIT_H
#define XDPKIT_H

/* ---- Types ---------------------------------------------------------------------------------- */

#ifndef __VMLINUX_H__
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef signed short __s16;
typedef signed int __s32;
typedef signed long long __s64;

/* In network byte order; __sum16 and __wsum are checksums, folded and not. */
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;
#endif

#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

/* ---- Attributes ----------------------------------------------------------------------------- */

#ifndef SEC
#define SEC(name) __attribute__((section(name), used))
#endif
/* <linux/stddef.h> has a version that does not include `inline`. */
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif
#ifndef __weak
#define __weak __attribute__((weak))
#endif
#ifndef __hidden
#define __hidden __attribute__((visibility("hidden")))
#endif
#ifndef __ksym
#define __ksym __attribute__((section(".ksyms")))
#endif
#ifndef __kconfig
#define __kconfig __attribute__((section(".kconfig")))
#endif

/* ---- Map definitions ------------------------------------------------------------------------ *
 *
 *     struct {
 *         __uint(type, BPF_MAP_TYPE_HASH);
 *         __uint(max_entries, 1024);
 *         __type(key, __u32);
 *         __type(value, struct flow);
 *     } flows SEC(".maps");
 *
 * Nothing is stored: the loader reads the attributes from the types of these pointers.
 */

#ifndef __uint
#define __uint(attribute, number) int(*attribute)[number]
#endif
#ifndef __type
#define __type(attribute, type) __typeof__(type) *attribute
#endif
#ifndef __array
#define __array(attribute, type) __typeof__(type) *attribute[]
#endif
#ifndef __ulong
/* For numbers of more than 32 bits (map_extra). */
#define __ulong(attribute, number) XDPKIT_ULONG(attribute, number, __COUNTER__)
#define XDPKIT_ULONG(attribute, number, unique) XDPKIT_ULONG_(attribute, number, unique)
#define XDPKIT_ULONG_(attribute, number, unique) enum { xdpkit_ulong_##unique = number } attribute
#endif

/* The values of __uint(pinning, ...). */
#define XDPKIT_PIN_NONE 0
#define XDPKIT_PIN_BY_NAME 1

/* ---- Byte order ----------------------------------------------------------------------------- */

#ifndef __BPF_ENDIAN__
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(x) ((__be16)__builtin_bswap16(x))
#define bpf_ntohs(x) ((__u16)__builtin_bswap16(x))
#define bpf_htonl(x) ((__be32)__builtin_bswap32(x))
#define bpf_ntohl(x) ((__u32)__builtin_bswap32(x))
#define bpf_cpu_to_be64(x) ((__be64)__builtin_bswap64(x))
#define bpf_be64_to_cpu(x) ((__u64)__builtin_bswap64(x))
#else
#define bpf_htons(x) ((__be16)(x))
#define bpf_ntohs(x) ((__u16)(x))
#define bpf_htonl(x) ((__be32)(x))
#define bpf_ntohl(x) ((__u32)(x))
#define bpf_cpu_to_be64(x) ((__be64)(x))
#define bpf_be64_to_cpu(x) ((__u64)(x))
#endif
#endif

/* ---- The kernel's interface: include/uapi/linux/bpf.h --------------------------------------- */

#if !defined(__LINUX_BPF_H__) && !defined(_UAPI__LINUX_BPF_H__) && !defined(__VMLINUX_H__)

/* What an XDP program is called with. Reads of data, data_end and data_meta give pointers. */
struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex; /* in xdp/devmap programs only */
};

enum xdp_action {
	XDP_ABORTED = 0,
	XDP_DROP = 1,
	XDP_PASS = 2,
	XDP_TX = 3,
	XDP_REDIRECT = 4,
};

enum bpf_map_type {
	BPF_MAP_TYPE_UNSPEC = 0,
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_STACK_TRACE = 7,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_HASH_OF_MAPS = 13,
	BPF_MAP_TYPE_DEVMAP = 14,
	BPF_MAP_TYPE_SOCKMAP = 15,
	BPF_MAP_TYPE_CPUMAP = 16,
	BPF_MAP_TYPE_XSKMAP = 17,
	BPF_MAP_TYPE_SOCKHASH = 18,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_STACK = 23,
	BPF_MAP_TYPE_DEVMAP_HASH = 25,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_BLOOM_FILTER = 30,
	BPF_MAP_TYPE_USER_RINGBUF = 31,
	BPF_MAP_TYPE_ARENA = 33,
};

/* __uint(map_flags, ...) */
enum {
	BPF_F_NO_PREALLOC = 1U << 0,
	BPF_F_NO_COMMON_LRU = 1U << 1,
	BPF_F_NUMA_NODE = 1U << 2,
	BPF_F_RDONLY = 1U << 3,
	BPF_F_WRONLY = 1U << 4,
	BPF_F_ZERO_SEED = 1U << 6,
	BPF_F_RDONLY_PROG = 1U << 7,
	BPF_F_WRONLY_PROG = 1U << 8,
	BPF_F_MMAPABLE = 1U << 10,
	BPF_F_PRESERVE_ELEMS = 1U << 11,
	BPF_F_INNER_MAP = 1U << 12,
};

/* bpf_map_update_elem */
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
	BPF_F_LOCK = 4,
};

/* bpf_redirect_map; bits 0 and 1 are the action to return when the key is not there. */
enum {
	BPF_F_BROADCAST = 1ULL << 3,
	BPF_F_EXCLUDE_INGRESS = 1ULL << 4,
};

/* bpf_perf_event_output: the low half is the index, the bits from 32 on the packet's length. */
#define BPF_F_INDEX_MASK 0xffffffffULL
#define BPF_F_CURRENT_CPU BPF_F_INDEX_MASK
#define BPF_F_CTXLEN_MASK (0xfffffULL << 32)

/* bpf_ringbuf_submit, bpf_ringbuf_discard, bpf_ringbuf_output; bpf_ringbuf_query */
enum {
	BPF_RB_NO_WAKEUP = 1ULL << 0,
	BPF_RB_FORCE_WAKEUP = 1ULL << 1,
};
enum {
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
	BPF_RB_CONS_POS = 2,
	BPF_RB_PROD_POS = 3,
};

/* bpf_fib_lookup: flags, and what it returns when not below 0 */
enum {
	BPF_FIB_LOOKUP_DIRECT = 1U << 0,
	BPF_FIB_LOOKUP_OUTPUT = 1U << 1,
	BPF_FIB_LOOKUP_SKIP_NEIGH = 1U << 2,
	BPF_FIB_LOOKUP_TBID = 1U << 3,
	BPF_FIB_LOOKUP_SRC = 1U << 4,
	BPF_FIB_LOOKUP_MARK = 1U << 5,
};
enum {
	BPF_FIB_LKUP_RET_SUCCESS = 0,
	BPF_FIB_LKUP_RET_BLACKHOLE = 1,
	BPF_FIB_LKUP_RET_UNREACHABLE = 2,
	BPF_FIB_LKUP_RET_PROHIBIT = 3,
	BPF_FIB_LKUP_RET_NOT_FWDED = 4,
	BPF_FIB_LKUP_RET_FWD_DISABLED = 5,
	BPF_FIB_LKUP_RET_UNSUPP_LWT = 6,
	BPF_FIB_LKUP_RET_NO_NEIGH = 7,
	BPF_FIB_LKUP_RET_FRAG_NEEDED = 8,
	BPF_FIB_LKUP_RET_NO_SRC_ADDR = 9,
};

/* In: what is known of the packet. Out, marked >: the way it has to go. */
struct bpf_fib_lookup {
	__u8 family; /* > AF_INET or AF_INET6 */
	__u8 l4_protocol;
	__be16 sport;
	__be16 dport;
	union {
		__u16 tot_len;
		__u16 mtu_result; /* > */
	} __attribute__((packed, aligned(2)));
	__u32 ifindex; /* > */
	union {
		__u8 tos;
		__be32 flowinfo;
		__u32 rt_metric; /* > */
	};
	union {
		__be32 ipv4_src;
		__u32 ipv6_src[4];
	};
	union {
		__be32 ipv4_dst; /* > the next hop */
		__u32 ipv6_dst[4];
	};
	union {
		struct {
			__be16 h_vlan_proto; /* > */
			__be16 h_vlan_TCI;   /* > */
		};
		__u32 tbid;
	};
	union {
		__u32 mark;
		struct {
			__u8 smac[6]; /* > */
			__u8 dmac[6]; /* > */
		};
	};
};

/* Values of device and CPU maps: a program's fd when written, its id when read. */
struct bpf_devmap_val {
	__u32 ifindex;
	union {
		int fd;
		__u32 id;
	} bpf_prog;
};
struct bpf_cpumap_val {
	__u32 qsize;
	union {
		int fd;
		__u32 id;
	} bpf_prog;
};

struct bpf_sock_tuple {
	union {
		struct {
			__be32 saddr;
			__be32 daddr;
			__be16 sport;
			__be16 dport;
		} ipv4;
		struct {
			__be32 saddr[4];
			__be32 daddr[4];
			__be16 sport;
			__be16 dport;
		} ipv6;
	};
};

/* Objects of the kernel's inside map values; the loader finds them by the name of their type. */
struct bpf_spin_lock {
	__u32 val;
};
struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));
struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));

#endif

/* ---- Helpers that XDP programs may call ----------------------------------------------------- */

#ifndef __BPF_HELPERS__

struct bpf_fib_lookup;
struct bpf_sock;
struct bpf_sock_tuple;
struct bpf_spin_lock;
struct bpf_timer;
struct bpf_dynptr;
struct iphdr;
struct ipv6hdr;
struct tcphdr;

/* For clang, a call through a constant address is the instruction `call number`. */
#if !defined(__clang__) && __has_attribute(kernel_helper)
#define XDPKIT_HELPER(number, result, name, ...)                                                   \
	extern result name(__VA_ARGS__) __attribute__((kernel_helper(number)))
#else
#define XDPKIT_HELPER(number, result, name, ...)                                                   \
	static result (*const name)(__VA_ARGS__) = (result(*)(__VA_ARGS__))(number)
#endif

/* Maps */
XDPKIT_HELPER(1, void *, bpf_map_lookup_elem, void *map, const void *key);
XDPKIT_HELPER(2, long, bpf_map_update_elem, void *map, const void *key, const void *value,
	      __u64 flags);
XDPKIT_HELPER(3, long, bpf_map_delete_elem, void *map, const void *key);
XDPKIT_HELPER(87, long, bpf_map_push_elem, void *map, const void *value, __u64 flags);
XDPKIT_HELPER(88, long, bpf_map_pop_elem, void *map, void *value);
XDPKIT_HELPER(89, long, bpf_map_peek_elem, void *map, void *value);
XDPKIT_HELPER(164, long, bpf_for_each_map_elem, void *map, void *callback, void *callback_ctx,
	      __u64 flags);
XDPKIT_HELPER(195, void *, bpf_map_lookup_percpu_elem, void *map, const void *key, __u32 cpu);
XDPKIT_HELPER(93, long, bpf_spin_lock, struct bpf_spin_lock *lock);
XDPKIT_HELPER(94, long, bpf_spin_unlock, struct bpf_spin_lock *lock);

/* The packet; ctx is a struct xdp_md or a struct xdpkit_md */
XDPKIT_HELPER(44, long, bpf_xdp_adjust_head, void *ctx, int delta);
XDPKIT_HELPER(54, long, bpf_xdp_adjust_meta, void *ctx, int delta);
XDPKIT_HELPER(65, long, bpf_xdp_adjust_tail, void *ctx, int delta);
XDPKIT_HELPER(188, __u64, bpf_xdp_get_buff_len, void *ctx);
XDPKIT_HELPER(189, long, bpf_xdp_load_bytes, void *ctx, __u32 offset, void *to,
	      __u32 length);
XDPKIT_HELPER(190, long, bpf_xdp_store_bytes, void *ctx, __u32 offset, void *from,
	      __u32 length);
XDPKIT_HELPER(28, __s64, bpf_csum_diff, __be32 *from, __u32 from_size, __be32 *to, __u32 to_size,
	      __wsum seed);

/* Where it goes */
XDPKIT_HELPER(23, long, bpf_redirect, __u32 ifindex, __u64 flags);
XDPKIT_HELPER(51, long, bpf_redirect_map, void *map, __u64 key, __u64 flags);
XDPKIT_HELPER(12, long, bpf_tail_call, void *ctx, void *prog_array, __u32 index);
XDPKIT_HELPER(69, long, bpf_fib_lookup, void *ctx, struct bpf_fib_lookup *params, int params_size,
	      __u32 flags);
XDPKIT_HELPER(163, long, bpf_check_mtu, void *ctx, __u32 ifindex, __u32 *mtu_len, __s32 len_diff,
	      __u64 flags);

/* Telling user space */
XDPKIT_HELPER(6, long, bpf_trace_printk, const char *format, __u32 format_size, ...);
XDPKIT_HELPER(25, long, bpf_perf_event_output, void *ctx, void *map, __u64 flags, void *data,
	      __u64 size);
XDPKIT_HELPER(130, long, bpf_ringbuf_output, void *ringbuf, void *data, __u64 size, __u64 flags);
XDPKIT_HELPER(131, void *, bpf_ringbuf_reserve, void *ringbuf, __u64 size, __u64 flags);
XDPKIT_HELPER(132, void, bpf_ringbuf_submit, void *data, __u64 flags);
XDPKIT_HELPER(133, void, bpf_ringbuf_discard, void *data, __u64 flags);
XDPKIT_HELPER(134, __u64, bpf_ringbuf_query, void *ringbuf, __u64 flags);

/* Time, CPU, chance; times are in nanoseconds */
XDPKIT_HELPER(5, __u64, bpf_ktime_get_ns, void);
XDPKIT_HELPER(125, __u64, bpf_ktime_get_boot_ns, void);
XDPKIT_HELPER(160, __u64, bpf_ktime_get_coarse_ns, void);
XDPKIT_HELPER(208, __u64, bpf_ktime_get_tai_ns, void);
XDPKIT_HELPER(118, __u64, bpf_jiffies64, void);
XDPKIT_HELPER(8, __u32, bpf_get_smp_processor_id, void);
XDPKIT_HELPER(7, __u32, bpf_get_prandom_u32, void);

/* Sockets and SYN cookies */
XDPKIT_HELPER(84, struct bpf_sock *, bpf_sk_lookup_tcp, void *ctx, struct bpf_sock_tuple *tuple,
	      __u32 tuple_size, __u64 netns, __u64 flags);
XDPKIT_HELPER(85, struct bpf_sock *, bpf_sk_lookup_udp, void *ctx, struct bpf_sock_tuple *tuple,
	      __u32 tuple_size, __u64 netns, __u64 flags);
XDPKIT_HELPER(99, struct bpf_sock *, bpf_skc_lookup_tcp, void *ctx, struct bpf_sock_tuple *tuple,
	      __u32 tuple_size, __u64 netns, __u64 flags);
XDPKIT_HELPER(86, long, bpf_sk_release, void *sock);
XDPKIT_HELPER(100, long, bpf_tcp_check_syncookie, void *sock, void *ip, __u32 ip_size,
	      struct tcphdr *tcp, __u32 tcp_size);
XDPKIT_HELPER(110, __s64, bpf_tcp_gen_syncookie, void *sock, void *ip, __u32 ip_size,
	      struct tcphdr *tcp, __u32 tcp_size);
XDPKIT_HELPER(204, __s64, bpf_tcp_raw_gen_syncookie_ipv4, struct iphdr *ip, struct tcphdr *tcp,
	      __u32 tcp_size);
XDPKIT_HELPER(205, __s64, bpf_tcp_raw_gen_syncookie_ipv6, struct ipv6hdr *ip, struct tcphdr *tcp,
	      __u32 tcp_size);
XDPKIT_HELPER(206, long, bpf_tcp_raw_check_syncookie_ipv4, struct iphdr *ip, struct tcphdr *tcp);
XDPKIT_HELPER(207, long, bpf_tcp_raw_check_syncookie_ipv6, struct ipv6hdr *ip, struct tcphdr *tcp);

/* Callbacks: loops and timers */
XDPKIT_HELPER(181, long, bpf_loop, __u32 iterations, void *callback, void *callback_ctx,
	      __u64 flags);
XDPKIT_HELPER(169, long, bpf_timer_init, struct bpf_timer *timer, void *map, __u64 clock);
XDPKIT_HELPER(170, long, bpf_timer_set_callback, struct bpf_timer *timer, void *callback);
XDPKIT_HELPER(171, long, bpf_timer_start, struct bpf_timer *timer, __u64 nanoseconds, __u64 flags);
XDPKIT_HELPER(172, long, bpf_timer_cancel, struct bpf_timer *timer);

/* Dynamic pointers */
XDPKIT_HELPER(197, long, bpf_dynptr_from_mem, void *data, __u64 size, __u64 flags,
	      struct bpf_dynptr *dynptr);
XDPKIT_HELPER(201, long, bpf_dynptr_read, void *to, __u64 length, const struct bpf_dynptr *dynptr,
	      __u64 offset, __u64 flags);
XDPKIT_HELPER(202, long, bpf_dynptr_write, const struct bpf_dynptr *dynptr, __u64 offset,
	      void *from, __u64 length, __u64 flags);
XDPKIT_HELPER(203, void *, bpf_dynptr_data, const struct bpf_dynptr *dynptr, __u64 offset,
	      __u64 length);

/* To the trace pipe, with up to three arguments; for debugging, it is slow. */
#define bpf_printk(format, ...)                                                                    \
	({                                                                                         \
		static const char xdpkit_format[] = format;                                        \
		bpf_trace_printk(xdpkit_format, sizeof(xdpkit_format), ##__VA_ARGS__);             \
	})

#endif

/* ---- Metadata hints (Linux 6.3; the VLAN tag 6.8) ------------------------------------------- *
 *
 * Kernel functions; a program that calls them is bound to a device when it is loaded. They return
 * 0, or -ENODATA when the device gave nothing for this packet, or -EOPNOTSUPP.
 */

#ifndef __VMLINUX_H__
enum xdp_rss_hash_type {
	XDP_RSS_L3_IPV4 = 1U << 0,
	XDP_RSS_L3_IPV6 = 1U << 1,
	XDP_RSS_L3_DYNHDR = 1U << 2,
	XDP_RSS_L4 = 1U << 3,
	XDP_RSS_L4_TCP = 1U << 4,
	XDP_RSS_L4_UDP = 1U << 5,
	XDP_RSS_L4_SCTP = 1U << 6,
	XDP_RSS_L4_IPSEC = 1U << 7,
	XDP_RSS_L4_ICMP = 1U << 8,
};
#endif

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym __weak;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash,
				    enum xdp_rss_hash_type *rss_type) __ksym __weak;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *vlan_proto,
					__u16 *vlan_tci) __ksym __weak;

/* ---- The extended context -------------------------------------------------------------------- *
 *
 *     SEC("xdp") int count_by_port(struct xdpkit_md *ctx) { ... ctx->port_index ... }
 *
 * It begins as struct xdp_md does. What follows at offset 1024 is not the kernel's: xdpkit rewrites
 * the instructions that read it when it loads the program, and no other loader does. A field that
 * is not read costs nothing. The fields cannot be written, and have the values of the moment when
 * the program was entered. More fields will follow at the end, and none will move: a program that
 * reads one that the installed xdpkit does not provide is refused, with the field's name.
 */

/* Each read keeps an instruction of its own: of two merged into one, the field is not constant. */
#if __has_attribute(preserve_static_offset)
#define XDPKIT_FIELDS_APART __attribute__((preserve_static_offset))
#else
#define XDPKIT_FIELDS_APART
#endif

struct xdpkit_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex; /* in xdp/devmap programs only */
	__u8 the_kernels[1000];

	__u32 port_index; /* the interface's own number in its port table; see XDPKIT_PORTS */
	__u32 frame_len;  /* bytes of the frame, with all its fragments */
	__u64 cookie;     /* the number that was given when the program was attached */
} XDPKIT_FIELDS_APART;

/* port_index of an interface that has no port, where the same program serves several. */
#define XDPKIT_NO_PORT 0xffffffffU

/* ---- Protocol headers ----------------------------------------------------------------------- */

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif

#ifndef ETH_P_IP
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_8021Q 0x8100
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021AD 0x88A8
#endif
#ifndef ETH_ALEN
#define ETH_ALEN 6
#define ETH_HLEN 14
#endif

#if !defined(_UAPI_LINUX_IN_H) && !defined(_LINUX_IN_H) && !defined(__VMLINUX_H__)
enum {
	IPPROTO_ICMP = 1,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_GRE = 47,
	IPPROTO_SCTP = 132,
};
#endif
#if !defined(_UAPI_LINUX_IN6_H) && !defined(_LINUX_IN6_H)
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60
#endif

#if !defined(_UAPI_LINUX_IF_ETHER_H) && !defined(_LINUX_IF_ETHER_H) && !defined(__VMLINUX_H__)
struct ethhdr {
	unsigned char h_dest[ETH_ALEN];
	unsigned char h_source[ETH_ALEN];
	__be16 h_proto;
} __attribute__((packed));
#endif

#ifndef __VMLINUX_H__
/* What follows the EtherType ETH_P_8021Q or ETH_P_8021AD. */
struct vlan_hdr {
	__be16 h_vlan_TCI;
	__be16 h_vlan_encapsulated_proto;
};
#endif

#if !defined(_UAPI_LINUX_IP_H) && !defined(_LINUX_IP_H) && !defined(__VMLINUX_H__)
struct iphdr {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	__u8 ihl : 4, version : 4;
#else
	__u8 version : 4, ihl : 4;
#endif
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__sum16 check;
	__be32 saddr;
	__be32 daddr;
};
#endif

#if !defined(_UAPI_IPV6_H) && !defined(_IPV6_H) && !defined(__VMLINUX_H__)
#if !defined(_UAPI_LINUX_IN6_H) && !defined(_LINUX_IN6_H)
struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be16 u6_addr16[8];
		__be32 u6_addr32[4];
	} in6_u;
};
#endif
struct ipv6hdr {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	__u8 priority : 4, version : 4;
#else
	__u8 version : 4, priority : 4;
#endif
	__u8 flow_lbl[3];
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	struct in6_addr saddr;
	struct in6_addr daddr;
};
/* Hop-by-hop, routing and destination options: hdrlen is in units of 8 bytes beyond the first 8. */
struct ipv6_opt_hdr {
	__u8 nexthdr;
	__u8 hdrlen;
} __attribute__((packed));
#endif

#if !defined(_UAPI_LINUX_UDP_H) && !defined(_LINUX_UDP_H) && !defined(__VMLINUX_H__)
struct udphdr {
	__be16 source;
	__be16 dest;
	__be16 len;
	__sum16 check;
};
#endif

#if !defined(_UAPI_LINUX_TCP_H) && !defined(_LINUX_TCP_H) && !defined(__VMLINUX_H__)
struct tcphdr {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	__u16 res1 : 4, doff : 4, fin : 1, syn : 1, rst : 1, psh : 1, ack : 1, urg : 1, ece : 1,
		cwr : 1;
#else
	__u16 doff : 4, res1 : 4, cwr : 1, ece : 1, urg : 1, ack : 1, psh : 1, rst : 1, syn : 1,
		fin : 1;
#endif
	__be16 window;
	__sum16 check;
	__be16 urg_ptr;
};
#endif

/* ---- Ports ----------------------------------------------------------------------------------- *
 *
 *     XDPKIT_PORTS;
 *     XDPKIT_PORT_SET(guests);
 *
 *     SEC("xdp") int example(struct xdpkit_md *ctx)
 *     {
 *             if (ctx->port_index == 1)
 *                     return xdpkit_redirect_to_set(guests);
 *             return xdpkit_redirect_to_port(1);
 *     }
 *
 * XDPKIT_PORTS, once at file level, has the program use the port table of the interfaces that it is
 * attached to (`xdpkit ports`, docs/ports.md); XDPKIT_PORT_SET, one of the sets of that table.
 */

#define XDPKIT_PORTS                                                                               \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_DEVMAP);                                                 \
		__uint(key_size, sizeof(__u32));                                                   \
		__uint(value_size, sizeof(struct bpf_devmap_val));                                 \
	} xdpkit_ports SEC(".maps");                                                               \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                   \
		__type(key, __u32);                                                                \
		__type(value, __u32);                                                              \
	} xdpkit_port_numbers SEC(".maps");                                                        \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                           \
		__type(key, __u32);                                                                \
		__type(value, struct xdpkit_port_counts);                                          \
	} xdpkit_port_counts SEC(".maps")

#define XDPKIT_PORT_SET(name)                                                                      \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_DEVMAP);                                                 \
		__uint(key_size, sizeof(__u32));                                                   \
		__uint(value_size, sizeof(struct bpf_devmap_val));                                 \
	} xdpkit_set_##name SEC(".maps")

/* What is counted for a port by the functions below. */
struct xdpkit_port_counts {
	__u64 absent; /* frames for the port while it had no interface */
};

/* Send the frame out of a port. Without an interface there: XDP_ABORTED, and the port counts it. */
#define xdpkit_redirect_to_port(port)                                                              \
	xdpkit_redirect_counted(&xdpkit_ports, &xdpkit_port_counts, (port))

/* Send a copy of the frame out of each port but the one that it came in by (Linux 5.14). */
#define xdpkit_redirect_to_others() xdpkit_broadcast(&xdpkit_ports)

/* The same, for the ports of a set (Linux 5.14). */
#define xdpkit_redirect_to_set(name) xdpkit_broadcast(&xdpkit_set_##name)

/* The port of an interface of the same network namespace, XDPKIT_NO_PORT if it has none. */
#define xdpkit_port_of(ifindex) xdpkit_port_in(&xdpkit_port_numbers, (ifindex))

static __always_inline int xdpkit_redirect_counted(void *ports, void *counts, __u32 port)
{
	long action = bpf_redirect_map(ports, port, XDP_ABORTED);
	struct xdpkit_port_counts *count;

	if (action == XDP_REDIRECT)
		return XDP_REDIRECT;
	count = bpf_map_lookup_elem(counts, &port);
	if (count)
		count->absent++;
	return XDP_ABORTED;
}

static __always_inline int xdpkit_broadcast(void *ports)
{
	/* Errors are told with the key, and are no single port's. */
	return bpf_redirect_map(ports, XDPKIT_NO_PORT, BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS);
}

static __always_inline __u32 xdpkit_port_in(void *numbers, __u32 ifindex)
{
	__u32 *port = bpf_map_lookup_elem(numbers, &ifindex);

	return port ? *port : XDPKIT_NO_PORT;
}

/* ---- What the program needs ----------------------------------------------------------------- *
 *
 *     XDPKIT_NEEDS("action-tx");
 *     XDPKIT_OPTIONAL_OF(firewall, "rx-hash");
 *
 * At file level, once for each capability; docs/capabilities.md has their names. xdpkit finds most
 * needs in the instructions by itself. A declaration is for what it cannot find (a value that comes
 * from a map), and for what the program can do without. It costs the program nothing. The first two
 * are about every program of the object.
 */

#define XDPKIT_NEEDS(capability) XDPKIT_DECLARE("1 needs:" capability, __COUNTER__)
#define XDPKIT_OPTIONAL(capability) XDPKIT_DECLARE("1 optional:" capability, __COUNTER__)
#define XDPKIT_NEEDS_OF(program, capability)                                                       \
	XDPKIT_DECLARE("1 needs:" capability " " #program, __COUNTER__)
#define XDPKIT_OPTIONAL_OF(program, capability)                                                    \
	XDPKIT_DECLARE("1 optional:" capability " " #program, __COUNTER__)
#define XDPKIT_DECLARE(text, unique) XDPKIT_DECLARE_(text, unique)
#define XDPKIT_DECLARE_(text, unique)                                                              \
	static const char xdpkit_declaration_##unique[] SEC(".xdpkit") = text

#endif /* XDPKIT_H */
