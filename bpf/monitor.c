// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Counts what goes wrong after an XDP program has run, by interface, program and cause. It stays in
 * the kernel (`xdpkit monitor install`), so whoever can make packets fail must not be able to make
 * it expensive, nor to make it forget:
 *
 * - Each CPU has a table of its own, which it alone writes: no lock, no atomic operation.
 * - A table has a fixed number of slots. One that is taken stays taken, so what is counted once is
 *   counted on. What finds no slot is counted as `other`.
 * - How many targets of redirects there are, packets may decide. They have slots of their own, and
 *   a program gets TARGETS of them for each errno; all others of it are one target, TARGET_OTHER,
 *   which is in the slots of the errors that packets do not choose.
 * - Where a key is tried first depends on a number that nobody can guess.
 * - The time of each kind of error is noted only as often as `rate` says; beyond that it only counts.
 *
 * src/xdpkit/monitor/layout.py reads the tables; the two are changed together.
 */
#include "tracing.h"

#define SLOTS 256 /* of each kind; powers of 2. A value of a per-CPU map has 32 KiB at most */
#define TARGETS 32
#define PROBES 16
#define TARGET_OTHER (~0U)
#define INDEX_ALL (~0U)

#define LAST_ACTION XDP_REDIRECT
#define IN_MAP (1 << 8) /* the program is that of an entry of a devmap or cpumap */

#define LAYOUT 1

/* Written by user space, at any time. */
volatile struct {
	__u32 layout; /* of all that is declared here; a reader must know it */
	__u32 rate;   /* how often a second the time of an error is noted */
	__u32 ticks;  /* the same, as the distance in jiffies */
	__u32 seed;   /* of the hash */
	__u32 by_cookie; /* whether user space can tell namespaces by their cookies */
	__u32 unused;
	__u64 since; /* when it was installed, CLOCK_BOOTTIME in nanoseconds */
} settings = {LAYOUT, 100, 10};

enum kind {
	EXCEPTION = 1,
	REDIRECT_ERROR,
	BULK,
	CPUMAP,
};

/*
 * Four words, which stay in registers: what is written in smaller pieces and read in larger ones
 * costs the CPU more than all the rest.
 */
struct key {
	__u64 netns; /* cookie of the network namespace; inode number without cookies */
	__u64 who;   /* interface; id of the program, BULK: interface that the frames came from */
	__u64 what;  /* kind, type of map, code, id of map: see WHAT() */
	__u64 where; /* index in the map, INDEX_ALL: of a broadcast; interface, CPUMAP: CPU.
		      * BULK: namespace that the frames came from */
};

#define PAIR(low, high) ((__u32)(low) | (__u64)(high) << 32)
/* EXCEPTION: the code is the action, clamped, and IN_MAP; REDIRECT_ERROR: the errno. */
#define WHAT(kind, map_type, code, map) PAIR((kind) | (map_type) << 8 | (code) << 16, map)
#define WHAT_WITHOUT_MAP(what) ((what) & 0xffff00ff)

struct slot {
	struct key key;
	__u64 count;
	__u64 last_seen; /* bpf_ktime_get_ns() */
	__u32 last;	 /* action as it was returned; TARGET_OTHER: targets that have a slot */
	__u32 noted;	 /* jiffies at last_seen */
};

struct table {
	__u64 other; /* packets that found no slot */
	__u64 used;  /* slots */
	struct slot slots[SLOTS];
	struct slot targets[SLOTS];
};

struct names {
	char interface[16];
	char program[16];
	char target[16];
};

struct names_table {
	struct names names[2 * SLOTS]; /* of the slots, then of the targets */
};

struct bulk {
	struct key key;
	__u64 sent, dropped;
	__u64 last_seen; /* when frames were dropped */
	__u64 last;	 /* errno */
	char interface[16];
	char source[16];
};

struct bulk_table {
	__u64 other; /* dropped frames that found no slot */
	__u64 used;
	struct bulk slots[SLOTS];
};

struct cpumap {
	struct key key;
	__u64 enqueued, queue_full;
	__u64 processed, no_memory;
	__u64 passed, dropped, redirected;
	__u64 last_seen;
};

struct cpumap_table {
	__u64 other; /* dropped frames that found no slot */
	__u64 used;
	struct cpumap slots[SLOTS];
};

struct failure {
	char text[80];
};

#define TABLE(name, structure)                                                                     \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                           \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, structure);                                                          \
	} name SEC(".maps")

TABLE(xdpkit_errors, struct table);
TABLE(xdpkit_names, struct names_table);
TABLE(xdpkit_bulks, struct bulk_table);
TABLE(xdpkit_cpumaps, struct cpumap_table);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, struct failure);
	__type(value, __u64);
} xdpkit_refused SEC(".maps");

static const __u32 only = 0;

/* User space puts it in, so that there is always room for it. */
static const struct failure other_failures = {"other"};

static __always_inline __u64 netns_of(const struct net_device *device)
{
	const struct net *net = device->nd_net.net;

	if (EXISTS(net->net_cookie) && settings.by_cookie)
		return net->net_cookie;
	return net->ns.inum;
}

static __always_inline void copy_name(char *to, const char *from)
{
	/* In four pieces: where the kernel has it, it need not be aligned to eight bytes. */
	for (int i = 0; i < 4; i++)
		((__u32 *)to)[i] = ((const __u32 *)from)[i];
}

static __always_inline int is_same(const struct key *a, const struct key *b)
{
	return a->netns == b->netns && a->who == b->who && a->what == b->what &&
	       a->where == b->where;
}

static __always_inline __u32 hash_of(const struct key *key)
{
	__u64 hash = key->netns * 0x9e3779b97f4a7c15 ^ key->who * 0xc2b2ae3d27d4eb4f;

	hash += key->what * 0x165667b19e3779f9 ^ key->where * 0x85ebca77c2b2ae63;
	hash ^= PAIR(settings.seed, settings.seed);
	/* The upper half: on it, all bits have an effect. */
	return hash * 0xd6e8feb86659fd93 >> 32;
}

/* Note the time, but not too often: a clock costs more than all the rest. */
static __always_inline void note_time(struct slot *slot)
{
	__u32 now = bpf_jiffies64();

	if (slot->last_seen && now - slot->noted < settings.ticks)
		return;
	slot->noted = now;
	slot->last_seen = bpf_ktime_get_ns();
}

/*
 * Returns which of the slots is the key's, or the first one that is free; -1 without either. Keys
 * begin the slots, which are `size` bytes; a free one has no kind.
 */
static __always_inline int find(const struct key *key, const void *slots, __u32 size)
{
	__u32 hash = hash_of(key);
	__u32 step = hash >> 16 | 1;

	for (int i = 0; i < PROBES; i++) {
		const struct key *there = slots + (hash & (SLOTS - 1)) * size;

		if (!there->what || is_same(key, there))
			return hash & (SLOTS - 1);
		hash += step;
	}
	return -1;
}

/*
 * Returns the slot of an error that packets do not choose, NULL if there is none. `place` is that of
 * its names.
 */
static __always_inline struct slot *slot_of(const struct key *key, struct table *table, int *place)
{
	int found = find(key, table->slots, sizeof(struct slot));

	if (found < 0)
		return NULL;
	*place = found & (SLOTS - 1);
	return &table->slots[*place];
}

/*
 * Returns the slot of a failed redirect: the target's own, or that of all which are too many; then
 * the key is changed.
 */
static __always_inline struct slot *target_slot_of(struct key *key, struct table *table, int *place)
{
	int found = find(key, table->targets, sizeof(struct slot)) & (2 * SLOTS - 1);
	struct key other = {
		.netns = key->netns,
		.who = key->who,
		.what = WHAT_WITHOUT_MAP(key->what),
		.where = PAIR(0, TARGET_OTHER),
	};
	struct slot *others;

	if (found < SLOTS && table->targets[found & (SLOTS - 1)].key.what)
		goto own;
	others = slot_of(&other, table, place);
	if (!others)
		return NULL;
	if (found < SLOTS && others->last < TARGETS) {
		/* It is taken from now on, for its number of targets, if not for packets. */
		if (!others->key.what)
			table->used++;
		others->key = other;
		others->last++;
		goto own;
	}
	*key = other;
	return others;
own:
	*place = SLOTS + (found & (SLOTS - 1));
	return &table->targets[found & (SLOTS - 1)];
}

static __always_inline int count_error(struct key *key, __u32 last, const struct net_device *device,
				       const struct bpf_prog *program,
				       const struct net_device *target)
{
	struct table *table = bpf_map_lookup_elem(&xdpkit_errors, &only);
	struct slot *slot;
	int place;

	if (!table)
		return 0;
	slot = (__u8)key->what == EXCEPTION ? slot_of(key, table, &place)
					    : target_slot_of(key, table, &place);
	if (!slot) {
		table->other++;
		return 0;
	}
	if (!slot->count) {
		struct names_table *names = bpf_map_lookup_elem(&xdpkit_names, &only);

		if (names) {
			struct names *its = &names->names[place & (2 * SLOTS - 1)];

			copy_name(its->interface, device->name);
			copy_name(its->program, program->aux->name);
			if (target)
				bpf_probe_read_kernel(its->target, sizeof(its->target), target->name);
		}
		if (!slot->key.what)
			table->used++;
		slot->key = *key;
	}
	slot->count++;
	if (key->where != PAIR(0, TARGET_OTHER))
		slot->last = last;
	note_time(slot);
	return 0;
}

/* (device, program, action) */
SEC("tp_btf/xdp_exception")
int xdp_exception(__u64 *context)
{
	const struct net_device *device = ARGUMENT(const struct net_device *, context, 0);
	const struct bpf_prog *program = ARGUMENT(const struct bpf_prog *, context, 1);
	__u32 action = context[2];
	/* It can come from a packet: then it must not make as many keys as it likes. */
	__u32 code = action > LAST_ACTION ? LAST_ACTION + 1 : action;
	struct key key = {};

	if (!device || !program)
		return 0;
	if (is_in_map(program))
		code |= IN_MAP;
	key.netns = netns_of(device);
	key.who = PAIR(device->ifindex, program->aux->id);
	key.what = WHAT(EXCEPTION, 0, code, 0);
	return count_error(&key, action, device, program, NULL);
}

static __always_inline int redirect_error(const struct net_device *device,
					  const struct bpf_prog *program,
					  const struct redirect *redirect, int knows_target)
{
	struct net_device *target = target_device(redirect);
	__u32 type = redirect->map_type, map = redirect->map_id, index = redirect->index;
	struct key key = {};

	if (!device || !program)
		return 0;
	if (type == BPF_MAP_TYPE_UNSPEC)
		map = index = 0;
	else if (knows_target && !target && is_devmap(redirect))
		index = INDEX_ALL;
	key.netns = netns_of(device);
	key.who = PAIR(device->ifindex, program->aux->id);
	key.what = WHAT(REDIRECT_ERROR, type, -redirect->error, map);
	key.where = PAIR(index, target_index(redirect, target));
	return count_error(&key, 0, device, program, target);
}

SEC("?tp_btf/xdp_redirect_err")
int xdp_redirect_err(__u64 *context)
{
	struct redirect redirect = REDIRECT_7(context, ARGUMENT(const void *, context, 2));

	return redirect_error(ARGUMENT(const struct net_device *, context, 0),
			      ARGUMENT(const struct bpf_prog *, context, 1), &redirect, 1);
}

SEC("?tp_btf/xdp_redirect_err")
int err_no_target(__u64 *context)
{
	struct redirect redirect = REDIRECT_7(context, NULL);

	return redirect_error(ARGUMENT(const struct net_device *, context, 0),
			      ARGUMENT(const struct bpf_prog *, context, 1), &redirect, 0);
}

SEC("?tp_btf/xdp_redirect_err")
int err_5_6(__u64 *context)
{
	const struct bpf_map *map = ARGUMENT(const struct bpf_map *, context, 4);
	struct redirect redirect = REDIRECT_6(context, map);

	return redirect_error(ARGUMENT(const struct net_device *, context, 0),
			      ARGUMENT(const struct bpf_prog *, context, 1), &redirect, 0);
}

static __always_inline int count_bulk(const struct net_device *from, const struct net_device *to,
				      int sent, int drops, int error)
{
	struct bulk_table *table = bpf_map_lookup_elem(&xdpkit_bulks, &only);
	struct key key = {
		.what = WHAT(BULK, 0, 0, 0),
	};
	struct bulk *bulk;
	int place;

	if (!table || !to)
		return 0;
	key.netns = netns_of(to);
	key.who = PAIR(to->ifindex, from ? from->ifindex : 0);
	if (from)
		key.where = netns_of(from);
	place = find(&key, table->slots, sizeof(struct bulk));
	if (place < 0) {
		if (drops > 0)
			table->other += drops;
		return 0;
	}
	bulk = &table->slots[place & (SLOTS - 1)];
	if (!bulk->key.what) {
		copy_name(bulk->interface, to->name);
		if (from)
			copy_name(bulk->source, from->name);
		table->used++;
		bulk->key = key;
	}
	if (sent > 0)
		bulk->sent += sent;
	if (drops > 0) {
		bulk->dropped += drops;
		bulk->last_seen = bpf_ktime_get_ns();
		if (error < 0)
			bulk->last = -error;
	}
	return 0;
}

/* (device that the frames came from, device, sent, drops, error) */
SEC("?tp_btf/xdp_devmap_xmit")
int xdp_devmap_xmit(__u64 *context)
{
	return count_bulk(ARGUMENT(const struct net_device *, context, 0),
			  ARGUMENT(const struct net_device *, context, 1), context[2], context[3],
			  context[4]);
}

/* XDP_TX on a veth: (device, sent, drops, error) */
SEC("?tp_btf/xdp_bulk_tx")
int xdp_bulk_tx(__u64 *context)
{
	return count_bulk(NULL, ARGUMENT(const struct net_device *, context, 0), context[1],
			  context[2], context[3]);
}

static __always_inline struct cpumap *cpumap_of(__u32 map, __u32 cpu, __u32 drops)
{
	struct cpumap_table *table = bpf_map_lookup_elem(&xdpkit_cpumaps, &only);
	struct key key = {
		.what = WHAT(CPUMAP, 0, 0, map),
		.where = PAIR(0, cpu),
	};
	int place;

	if (!table)
		return NULL;
	place = find(&key, table->slots, sizeof(struct cpumap));
	if (place < 0) {
		table->other += drops;
		return NULL;
	}
	place &= SLOTS - 1;
	if (!table->slots[place].key.what)
		table->used++;
	table->slots[place].key = key;
	return &table->slots[place];
}

/* (id of map, processed, drops, CPU) */
SEC("?tp_btf/xdp_cpumap_enqueue")
int xdp_cpumap_enqueue(__u64 *context)
{
	__u32 processed = context[1], drops = context[2];
	struct cpumap *cpumap = cpumap_of(context[0], context[3], drops);

	if (!cpumap)
		return 0;
	/* In native mode it tells of a bulk, dropped frames among them; in generic mode of one. */
	if (processed)
		cpumap->enqueued += processed - drops;
	if (drops) {
		cpumap->queue_full += drops;
		cpumap->last_seen = bpf_ktime_get_ns();
	}
	return 0;
}

/* Linux 5.9: (id of map, processed, drops, whether it slept, what the entry's program did) */
SEC("?tp_btf/xdp_cpumap_kthread")
int xdp_cpumap_kthread(__u64 *context)
{
	const struct xdp_cpumap_stats *stats =
		ARGUMENT(const struct xdp_cpumap_stats *, context, 4);
	__u32 drops = context[2];
	struct cpumap *cpumap = cpumap_of(context[0], bpf_get_smp_processor_id(), drops);

	if (!cpumap)
		return 0;
	cpumap->processed += (__u32)context[1];
	if (stats) {
		cpumap->passed += stats->pass;
		cpumap->dropped += stats->drop;
		cpumap->redirected += stats->redirect;
	}
	if (drops) {
		cpumap->no_memory += drops;
		cpumap->last_seen = bpf_ktime_get_ns();
	}
	return 0;
}

/* Linux 6.6: (text); for links only, what is attached by netlink is told the text itself */
SEC("?tp_btf/bpf_xdp_link_attach_failed")
int attach_failed(__u64 *context)
{
	struct failure failure = {};
	__u64 first = 1, *count;

	bpf_probe_read_kernel_str(failure.text, sizeof(failure.text),
				  ARGUMENT(const void *, context, 0));
	if (bpf_map_update_elem(&xdpkit_refused, &failure, &first, BPF_NOEXIST)) {
		count = bpf_map_lookup_elem(&xdpkit_refused, &failure);
		if (!count)
			count = bpf_map_lookup_elem(&xdpkit_refused, &other_failures);
		if (count)
			__sync_fetch_and_add(count, 1);
	}
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
