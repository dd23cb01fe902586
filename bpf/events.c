// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Tells a reader of every packet that went wrong after its XDP program had run, one by one, as long
 * as the reader grants credit for it. Without credit, or without room, it is only counted.
 *
 * Each reader loads these programs for itself, with maps of its own. They are not pinned, so they
 * go with it.
 */
#include "tracing.h"

#define MAX_INTERFACES 4096
#define MAX_PROGRAMS 1024
#define NAME_SIZE 16
#define TEXT_SIZE 128

#define NO_QUEUE (~0U)
#define INDEX_ALL (~0U)
#define IN_MAP (1 << 0)

enum kind {
	EXCEPTION = 1,
	REDIRECT_ERROR = 2,
	DEVMAP_XMIT = 3,
	BULK_TX = 4,
	CPUMAP_ENQUEUE = 5,
	CPUMAP_KTHREAD = 6,
	ATTACH_FAILED = 7,
};

/* src/xdpkit/monitor/record.py has what the members mean. */
struct event {
	__u64 time;
	__u32 kind;
	__u32 cpu;
	__u32 netns;
	__u32 ifindex;
	__u32 program;
	__u32 action;
	__s32 error;
	union {
		__u32 queue;
		__u32 target_netns;
	};
	__u32 length;
	__u32 captured;
	__u32 target;
	__u32 map_id;
	__u32 map_type;
	__u32 map_index;
	__u32 drops;
	__u32 flags;
	char name[NAME_SIZE];
};

struct text_event {
	struct event head;
	char text[TEXT_SIZE];
};

/* What is to be told; set before the load. 0 of a namespace stands for all. */
const volatile __u32 only_netns = 0;
const volatile __u8 by_interface = 0;
const volatile __u8 by_program = 0;

/* A bit for each action, and one behind them for what is none. */
const volatile __u32 actions = (1 << (XDP_REDIRECT + 2)) - 1;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, __u32);
	__type(value, __u8);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PROGRAMS);
	__type(key, __u32);
	__type(value, __u8);
} program_ids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PROGRAMS);
	__uint(key_size, NAME_SIZE);
	__type(value, __u8);
} program_names SEC(".maps");

/*
 * Each number has one writer: user space that of the credit, a CPU those of its spending. The reader
 * brings these three maps, in the size that it wants.
 */
struct credit {
	__u64 granted;
	__u64 unused[7];
};

struct spending {
	__u64 spent;
	__u64 suppressed;
	__u64 lost;
	__u64 seen;
	/* Where a packet came in that was told of already, by the program that it met itself. */
	__u64 noted;
	/* The same by xdp_redirect_err; some drivers tell of it once more, by xdp_exception. */
	__u64 redirected;
	__u64 unused[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct credit);
} credits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct spending);
} spending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

static __always_inline int is_wanted_action(__u32 action)
{
	return actions >> (action > XDP_REDIRECT ? XDP_REDIRECT + 1 : action) & 1;
}

static __always_inline __u32 netns_of(const struct net_device *dev)
{
	return dev->nd_net.net->ns.inum;
}

/* The same, where the verifier does not know what it is. */
static __always_inline __u32 netns_of_target(const struct net_device *dev)
{
	struct net *net = NULL;
	__u32 netns = 0;

	bpf_probe_read_kernel(&net, sizeof(net), &dev->nd_net.net);
	bpf_probe_read_kernel(&netns, sizeof(netns), &net->ns.inum);
	return netns;
}

static __always_inline int is_wanted_interface(__u32 netns, __u32 ifindex)
{
	if (only_netns && netns != only_netns)
		return 0;
	return !by_interface || bpf_map_lookup_elem(&interfaces, &ifindex);
}

static __always_inline int is_wanted_program(const struct bpf_prog *program)
{
	char name[NAME_SIZE] = {};
	__u32 id;

	if (!by_program)
		return 1;
	id = program->aux->id;
	if (bpf_map_lookup_elem(&program_ids, &id))
		return 1;
	bpf_probe_read_kernel(name, sizeof(name), &program->aux->name);
	return !!bpf_map_lookup_elem(&program_names, name);
}

static __always_inline struct spending *own_spending(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&spending, &cpu);
}

/*
 * Packets are handled with soft interrupts off, so nobody else writes on this CPU meanwhile. What
 * can be interrupted by that adds in one instruction.
 */
static __always_inline void add_one(__u64 *number, int is_interruptible)
{
	if (is_interruptible)
		__sync_fetch_and_add(number, 1);
	else
		*number += 1;
}

/* Room for an event that has been paid for; NULL: it is only counted. */
static __always_inline void *reserve(struct spending *own, __u64 size, __u32 kind,
				     int is_interruptible)
{
	__u32 cpu = bpf_get_smp_processor_id();
	volatile struct credit *credit = bpf_map_lookup_elem(&credits, &cpu);
	struct event *event;

	add_one(&own->seen, is_interruptible);
	if (!credit || own->spent >= credit->granted) {
		add_one(&own->suppressed, is_interruptible);
		return NULL;
	}
	add_one(&own->spent, is_interruptible);
	event = bpf_ringbuf_reserve(&events, size, 0);
	if (!event) {
		add_one(&own->lost, is_interruptible);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_ns();
	event->kind = kind;
	event->cpu = cpu;
	event->queue = NO_QUEUE;
	return event;
}

static __always_inline void tell_program(struct event *event, const struct bpf_prog *program)
{
	event->program = program->aux->id;
	event->flags = is_in_map(program) ? IN_MAP : 0;
	bpf_probe_read_kernel(event->name, sizeof(event->name), &program->aux->name);
}

static __always_inline __u64 place_of(__u32 netns, __u32 ifindex)
{
	return (__u64)netns << 32 | ifindex;
}

/* Whether a mark is that of this place; it is taken away then. */
static __always_inline int take_mark(__u64 *mark, __u64 place)
{
	if (*mark != place)
		return 0;
	*mark = 0;
	return 1;
}

/* xdp_exception(dev, program, action) */
SEC("?tp_btf/xdp_exception")
int exception(__u64 *ctx)
{
	const struct net_device *dev = ARGUMENT(const struct net_device *, ctx, 0);
	const struct bpf_prog *program = ARGUMENT(const struct bpf_prog *, ctx, 1);
	__u32 action = ARGUMENT(__u32, ctx, 2);
	struct spending *own = own_spending();
	struct event *event;
	__u32 netns, ifindex;
	__u64 place;

	if (!own || !dev || !program)
		return 0;
	netns = netns_of(dev);
	ifindex = dev->ifindex;
	place = place_of(netns, ifindex);
	if (action == XDP_ABORTED || action > XDP_REDIRECT) {
		if (take_mark(&own->noted, place))
			return 0;
	} else if (action == XDP_REDIRECT && take_mark(&own->redirected, place)) {
		return 0;
	}
	if (!is_wanted_action(action) || !is_wanted_interface(netns, ifindex) ||
	    !is_wanted_program(program))
		return 0;
	event = reserve(own, sizeof(*event), EXCEPTION, 0);
	if (!event)
		return 0;
	event->netns = netns;
	event->ifindex = ifindex;
	event->action = action;
	tell_program(event, program);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static __always_inline int tell_redirect(const struct net_device *dev,
					 const struct bpf_prog *program,
					 const struct redirect *redirect, int knows_target)
{
	struct net_device *target = target_device(redirect);
	struct spending *own = own_spending();
	struct event *event;
	__u32 netns, ifindex;

	if (!own || !dev || !program)
		return 0;
	netns = netns_of(dev);
	ifindex = dev->ifindex;
	own->redirected = place_of(netns, ifindex);
	if (!is_wanted_action(XDP_REDIRECT) || !is_wanted_interface(netns, ifindex) ||
	    !is_wanted_program(program))
		return 0;
	event = reserve(own, sizeof(*event), REDIRECT_ERROR, 0);
	if (!event)
		return 0;
	event->netns = netns;
	event->ifindex = ifindex;
	event->action = XDP_REDIRECT;
	event->error = redirect->error;
	event->target = target_index(redirect, target);
	event->target_netns = target ? netns_of_target(target) : netns;
	event->map_id = redirect->map_id;
	event->map_type = redirect->map_type;
	event->map_index = redirect->index;
	if (knows_target && is_devmap(redirect) && !redirect->target)
		event->map_index = INDEX_ALL;
	tell_program(event, program);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("?tp_btf/xdp_redirect_err")
int redirect_error(__u64 *ctx)
{
	struct redirect redirect = REDIRECT_7(ctx, ARGUMENT(const void *, ctx, 2));

	return tell_redirect(ARGUMENT(const struct net_device *, ctx, 0),
			     ARGUMENT(const struct bpf_prog *, ctx, 1), &redirect, 1);
}

SEC("?tp_btf/xdp_redirect_err")
int redirect_error_no_target(__u64 *ctx)
{
	struct redirect redirect = REDIRECT_7(ctx, NULL);

	return tell_redirect(ARGUMENT(const struct net_device *, ctx, 0),
			     ARGUMENT(const struct bpf_prog *, ctx, 1), &redirect, 0);
}

SEC("?tp_btf/xdp_redirect_err")
int redirect_error_of_map(__u64 *ctx)
{
	const struct bpf_map *map = ARGUMENT(const struct bpf_map *, ctx, 4);
	struct redirect redirect = REDIRECT_6(ctx, map);

	return tell_redirect(ARGUMENT(const struct net_device *, ctx, 0),
			     ARGUMENT(const struct bpf_prog *, ctx, 1), &redirect, 0);
}

/*
 * What was to be transmitted goes in bulks, of which programs are not known any more. These fire on
 * success, too: told is what was lost.
 */

/* xdp_devmap_xmit(from, to, sent, drops, error) */
SEC("?tp_btf/xdp_devmap_xmit")
int devmap_xmit(__u64 *ctx)
{
	const struct net_device *from = ARGUMENT(const struct net_device *, ctx, 0);
	const struct net_device *to = ARGUMENT(const struct net_device *, ctx, 1);
	__u32 drops = ARGUMENT(__u32, ctx, 3);
	struct spending *own;
	struct event *event;

	if (!drops || !from || !to || by_program || !is_wanted_action(XDP_REDIRECT))
		return 0;
	if (!is_wanted_interface(netns_of(from), from->ifindex) &&
	    !is_wanted_interface(netns_of(to), to->ifindex))
		return 0;
	own = own_spending();
	event = own ? reserve(own, sizeof(*event), DEVMAP_XMIT, 0) : NULL;
	if (!event)
		return 0;
	event->netns = netns_of(from);
	event->ifindex = from->ifindex;
	event->target = to->ifindex;
	event->target_netns = netns_of(to);
	event->action = XDP_REDIRECT;
	event->length = ARGUMENT(__u32, ctx, 2);
	event->drops = drops;
	event->error = ARGUMENT(__s32, ctx, 4);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* xdp_bulk_tx(dev, sent, drops, error): XDP_TX of a veth */
SEC("?tp_btf/xdp_bulk_tx")
int bulk_tx(__u64 *ctx)
{
	const struct net_device *dev = ARGUMENT(const struct net_device *, ctx, 0);
	__u32 drops = ARGUMENT(__u32, ctx, 2);
	struct spending *own;
	struct event *event;

	if (!drops || !dev || by_program || !is_wanted_action(XDP_TX) ||
	    !is_wanted_interface(netns_of(dev), dev->ifindex))
		return 0;
	own = own_spending();
	event = own ? reserve(own, sizeof(*event), BULK_TX, 0) : NULL;
	if (!event)
		return 0;
	event->netns = netns_of(dev);
	event->ifindex = dev->ifindex;
	event->action = XDP_TX;
	event->length = ARGUMENT(__u32, ctx, 1);
	event->drops = drops;
	event->error = ARGUMENT(__s32, ctx, 3);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/*
 * Of cpumaps neither the interface nor the program is known: these are loaded only if all of them
 * are wanted.
 */
static __always_inline int tell_cpumap(__u64 *ctx, __u32 cpu, __u32 kind, int is_interruptible)
{
	__u32 processed = ARGUMENT(__u32, ctx, 1), drops = ARGUMENT(__u32, ctx, 2);
	struct spending *own;
	struct event *event;

	if (!drops)
		return 0;
	own = own_spending();
	event = own ? reserve(own, sizeof(*event), kind, is_interruptible) : NULL;
	if (!event)
		return 0;
	event->action = XDP_REDIRECT;
	event->map_type = BPF_MAP_TYPE_CPUMAP;
	event->map_id = ARGUMENT(__u32, ctx, 0);
	event->map_index = cpu;
	event->length = processed - drops;
	event->drops = drops;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* xdp_cpumap_enqueue(map_id, processed, drops, to_cpu) */
SEC("?tp_btf/xdp_cpumap_enqueue")
int cpumap_enqueue(__u64 *ctx)
{
	/*
	 * In native mode it tells of a bulk, dropped frames among them. In generic mode it tells of
	 * one frame, which was either processed or dropped; of a dropped one xdp_redirect_err tells.
	 */
	if (!ARGUMENT(__u32, ctx, 1))
		return 0;
	return tell_cpumap(ctx, ARGUMENT(__u32, ctx, 3), CPUMAP_ENQUEUE, 0);
}

/* xdp_cpumap_kthread(map_id, processed, drops, …), on the CPU of the map's entry */
SEC("?tp_btf/xdp_cpumap_kthread")
int cpumap_kthread(__u64 *ctx)
{
	return tell_cpumap(ctx, bpf_get_smp_processor_id(), CPUMAP_KTHREAD, 1);
}

/* bpf_xdp_link_attach_failed(text), since Linux 6.6 */
SEC("?tp_btf/bpf_xdp_link_attach_failed")
int attach_failed(__u64 *ctx)
{
	struct spending *own = own_spending();
	struct text_event *event;
	long size;

	event = own ? reserve(own, sizeof(*event), ATTACH_FAILED, 1) : NULL;
	if (!event)
		return 0;
	size = bpf_probe_read_kernel_str(event->text, sizeof(event->text),
					 ARGUMENT(const void *, ctx, 0));
	event->head.captured = size > 0 ? size : 0;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
