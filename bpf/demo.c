// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The demo's program: drops UDP datagrams to one port, counts what it did with every packet.
 *
 * IPv4 and IPv6, with up to two VLAN tags. What it cannot read it lets pass: a firewall for one
 * port has nothing to say about a packet that names none.
 */
#include <xdpkit.h>

/* Set before the load; in host byte order. 0 blocks nothing. */
const volatile __u16 blocked_port = 53;

/* Packets by action: hits[XDP_DROP], hits[XDP_PASS]. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XDP_REDIRECT + 1);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

struct queue_hits {
	__u64 passed;
	__u64 dropped;
};

/* The same by RX queue; packets of queues beyond the last entry are in `hits` only. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct queue_hits);
} queues SEC(".maps");

#define MAX_VLAN_TAGS 2
#define MAX_IPV6_OPTIONS 4

/* The part of the packet that is still to be read. */
struct cursor {
	void *at;
	void *end;
};

/* Step over `size` bytes; NULL when the packet has less. */
static __always_inline void *take(struct cursor *cursor, __u32 size)
{
	void *at = cursor->at;

	if (at + size > cursor->end)
		return NULL;
	cursor->at = at + size;
	return at;
}

/* The EtherType behind the VLAN tags, or 0. */
static __always_inline __u16 take_ethernet(struct cursor *cursor)
{
	struct ethhdr *ethernet = take(cursor, sizeof(*ethernet));
	__u16 type;

	if (!ethernet)
		return 0;
	type = bpf_ntohs(ethernet->h_proto);
	for (int tag = 0; tag < MAX_VLAN_TAGS; tag++) {
		struct vlan_hdr *vlan;

		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			break;
		vlan = take(cursor, sizeof(*vlan));
		if (!vlan)
			return 0;
		type = bpf_ntohs(vlan->h_vlan_encapsulated_proto);
	}
	return type;
}

/* The protocol that the IPv4 header announces; 0 behind a first fragment, which has no ports. */
static __always_inline __u8 take_ipv4(struct cursor *cursor)
{
	struct iphdr *ip = take(cursor, sizeof(*ip));

	if (!ip || ip->ihl < 5)
		return 0;
	if (ip->frag_off & bpf_htons(0x1fff))
		return 0;
	if (!take(cursor, (ip->ihl - 5) * 4))
		return 0;
	return ip->protocol;
}

/* The protocol behind the IPv6 header and its options, or 0. */
static __always_inline __u8 take_ipv6(struct cursor *cursor)
{
	struct ipv6hdr *ip = take(cursor, sizeof(*ip));
	__u8 protocol;

	if (!ip)
		return 0;
	protocol = ip->nexthdr;
	for (int i = 0; i < MAX_IPV6_OPTIONS; i++) {
		struct ipv6_opt_hdr *option;

		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING &&
		    protocol != IPPROTO_DSTOPTS)
			break;
		option = take(cursor, sizeof(*option));
		if (!option || !take(cursor, option->hdrlen * 8 + 8 - sizeof(*option)))
			return 0;
		protocol = option->nexthdr;
	}
	return protocol;
}

static __always_inline int judge(struct xdp_md *ctx)
{
	struct cursor cursor = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	struct udphdr *udp;
	__u8 protocol = 0;

	switch (take_ethernet(&cursor)) {
	case ETH_P_IP:
		protocol = take_ipv4(&cursor);
		break;
	case ETH_P_IPV6:
		protocol = take_ipv6(&cursor);
		break;
	}
	if (protocol != IPPROTO_UDP)
		return XDP_PASS;
	udp = take(&cursor, sizeof(*udp));
	if (!udp || !blocked_port || udp->dest != bpf_htons(blocked_port))
		return XDP_PASS;
	return XDP_DROP;
}

static __always_inline void count(__u32 queue, __u32 action)
{
	__u64 *packets = bpf_map_lookup_elem(&hits, &action);
	struct queue_hits *of_queue = bpf_map_lookup_elem(&queues, &queue);

	if (packets)
		*packets += 1;
	if (!of_queue)
		return;
	if (action == XDP_DROP)
		of_queue->dropped += 1;
	else
		of_queue->passed += 1;
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	int action = judge(ctx);

	count(ctx->rx_queue_index, action);
	return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
