// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A learning layer-2 switch between the ports of a table; `xdpkit forward l2` runs it.
 *
 * A frame goes to the port behind which its destination was last heard of, and to all other ports
 * where that is not known. VLANs are told apart by the outer tag in the frame: a station is known by
 * its address and its VLAN, and those of service tags (802.1ad) are others than those of customer
 * tags (802.1Q). A tag with VLAN 0 has a priority only: the frame is in no VLAN, as one without. The
 * interfaces must leave the tag there (ethtool -K eth0 rxvlan off).
 *
 * The host that runs it has no part in the switch: what is addressed to its own interfaces is
 * forwarded like all else. It does not speak the spanning tree protocol, so loops are not noticed.
 */
#include <xdpkit.h>

#define MAX_STATIONS 16384
#define NSEC_PER_SEC 1000000000ULL

/* How long a station that keeps silent is remembered, in nanoseconds; set before the load. */
const volatile __u64 ageing_ns = 300 * NSEC_PER_SEC;

struct station {
	__u8 mac[ETH_ALEN];
	__be16 tag;	/* kind of the tag (TPID), 0 in no VLAN */
	__u16 vlan;	/* VLAN identifier, 0 in no VLAN */
};

/* Where a station was heard of, and when, by CLOCK_MONOTONIC in nanoseconds. */
struct place {
	__u64 seen;
	__u32 port;
	__u32 unused;
};

XDPKIT_PORTS;

/* The oldest go when it is full, so forged addresses cannot stop it from learning. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_STATIONS);
	__type(key, struct station);
	__type(value, struct place);
} stations SEC(".maps");

static __always_inline int is_multicast(const __u8 *mac)
{
	return mac[0] & 1;
}

static __always_inline int is_zero(const __u8 *mac)
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

/* 01:80:c2:00:00:00 to :0f: between neighbours; IEEE 802.1Q has no bridge forward them. */
static __always_inline int is_link_local(const __u8 *mac)
{
	return mac[0] == 0x01 && mac[1] == 0x80 && mac[2] == 0xc2 && !mac[3] && !mac[4] &&
	       (mac[5] & 0xf0) == 0;
}

/* Another CPU may have written a time that is later than this one's. */
static __always_inline __u64 age(const struct place *place, __u64 now)
{
	return place->seen < now ? now - place->seen : 0;
}

static __always_inline void learn(const struct station *station, __u32 port, __u64 now)
{
	struct place *known = bpf_map_lookup_elem(&stations, station);
	struct place place = {.seen = now, .port = port};

	if (!known) {
		bpf_map_update_elem(&stations, station, &place, BPF_ANY);
		return;
	}
	/* What stays as it is for a second is not written, so that CPUs can share its cache line. */
	if (known->port != port)
		known->port = port;
	else if (age(known, now) < NSEC_PER_SEC)
		return;
	known->seen = now;
}

SEC("xdp")
int l2_switch(struct xdpkit_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct station station = {};
	struct vlan_hdr *tag;
	struct place *place;
	__u64 now;

	if ((void *)(ethernet + 1) > end)
		return XDP_DROP;
	if (is_multicast(ethernet->h_source) || is_zero(ethernet->h_source))
		return XDP_DROP;
	if (is_link_local(ethernet->h_dest))
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_8021Q) ||
	    ethernet->h_proto == bpf_htons(ETH_P_8021AD)) {
		tag = (void *)(ethernet + 1);
		if ((void *)(tag + 1) > end)
			return XDP_DROP;
		station.vlan = bpf_ntohs(tag->h_vlan_TCI) & 0xfff;
		station.tag = station.vlan ? ethernet->h_proto : 0;
	}

	now = bpf_ktime_get_coarse_ns();
	__builtin_memcpy(station.mac, ethernet->h_source, ETH_ALEN);
	learn(&station, ctx->port_index, now);

	if (is_multicast(ethernet->h_dest))
		return xdpkit_redirect_to_others();
	__builtin_memcpy(station.mac, ethernet->h_dest, ETH_ALEN);
	place = bpf_map_lookup_elem(&stations, &station);
	if (!place || age(place, now) >= ageing_ns)
		return xdpkit_redirect_to_others();
	if (place->port == ctx->port_index)
		return XDP_DROP;
	return xdpkit_redirect_to_port(place->port);
}

char _license[] SEC("license") = "Dual BSD/GPL";
