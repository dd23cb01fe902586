// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A layer-3 router between the ports of a table, by the kernel's own routes and neighbours;
 * `xdpkit forward l3` runs it.
 *
 * It does what is done for nearly all packets. The rest it leaves to the kernel's stack, as if it
 * were not there: packets for the host itself, options, fragments, multicast, VLAN tags, an expired
 * TTL, a packet that is too long, a neighbour that is not known yet, an interface that is no port.
 * The stack answers with ICMP, asks for the neighbour, or forwards. Of routes that say no, it drops
 * those to a blackhole itself, as these are for floods; "unreachable" and "prohibit" have an answer,
 * and are left to the stack.
 *
 * Netfilter and the reverse path filter (rp_filter) do not see what it forwards.
 */
#include <xdpkit.h>

#define IP_MORE_FRAGMENTS_OR_OFFSET 0x3fff
#define IPV6_FLOWINFO 0x0fffffff

#define MAX_PORTS 1024

struct address {
	__u8 mac[ETH_ALEN];
};

XDPKIT_PORTS;

/* The ports' own addresses; whoever attaches the program fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct address);
} addresses SEC(".maps");

/* Whether the frame is for the router: a switch may flood it with those for others. */
static __always_inline int is_for_port(const struct ethhdr *ethernet, __u32 port)
{
	struct address *own = bpf_map_lookup_elem(&addresses, &port);

	return own && !__builtin_memcmp(ethernet->h_dest, own->mac, ETH_ALEN);
}

/* 0/8, 127/8, 224/4 and 240/4 are no station's address. */
static __always_inline int is_no_station_v4(__be32 address)
{
	__u8 first = bpf_ntohl(address) >> 24;

	return first == 0 || first == 127 || first >= 224;
}

/* ::/96 with :: and ::1, fe80::/10, ff00::/8. */
static __always_inline int stays_on_link_v6(const struct in6_addr *address)
{
	const __be32 *words = address->in6_u.u6_addr32;

	return (!words[0] && !words[1] && !words[2]) ||
	       (words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	       (words[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

/* Multipath routes may choose by them. */
static __always_inline void note_ports(struct bpf_fib_lookup *fib, void *transport, void *end)
{
	struct udphdr *ports = transport;

	if (fib->l4_protocol != IPPROTO_TCP && fib->l4_protocol != IPPROTO_UDP)
		return;
	if ((void *)&ports->len > end)
		return;
	fib->sport = ports->source;
	fib->dport = ports->dest;
}

/* Whether it is to be forwarded here. Then it is described in `fib`. */
static __always_inline int read_ipv4(struct iphdr *ip, void *end, struct bpf_fib_lookup *fib)
{
	__u16 length;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5)
		return 0;
	length = bpf_ntohs(ip->tot_len);
	if (length < sizeof(*ip) || length > end - (void *)ip)
		return 0;
	if (ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS_OR_OFFSET) || ip->ttl <= 1)
		return 0;
	if (is_no_station_v4(ip->saddr) || is_no_station_v4(ip->daddr))
		return 0;
	fib->family = AF_INET;
	fib->tos = ip->tos;
	fib->l4_protocol = ip->protocol;
	fib->tot_len = length;
	fib->ipv4_src = ip->saddr;
	fib->ipv4_dst = ip->daddr;
	note_ports(fib, ip + 1, end);
	return 1;
}

static __always_inline int read_ipv6(struct ipv6hdr *ip, void *end, struct bpf_fib_lookup *fib)
{
	__u32 length;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return 0;
	length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (length > end - (void *)ip || ip->hop_limit <= 1)
		return 0;
	if (ip->nexthdr == IPPROTO_HOPOPTS || ip->nexthdr == IPPROTO_ROUTING ||
	    ip->nexthdr == IPPROTO_FRAGMENT)
		return 0;
	if (stays_on_link_v6(&ip->saddr) || stays_on_link_v6(&ip->daddr))
		return 0;
	fib->family = AF_INET6;
	fib->flowinfo = *(__be32 *)ip & bpf_htonl(IPV6_FLOWINFO);
	fib->l4_protocol = ip->nexthdr;
	fib->tot_len = length;
	__builtin_memcpy(fib->ipv6_src, &ip->saddr, sizeof(fib->ipv6_src));
	__builtin_memcpy(fib->ipv6_dst, &ip->daddr, sizeof(fib->ipv6_dst));
	note_ports(fib, ip + 1, end);
	return 1;
}

/* One hop less, and the checksum by RFC 1624: HC' = ~(~HC + ~m + m'). */
static __always_inline void decrease_ttl(struct iphdr *ip)
{
	__u32 sum = (__u16)~ip->check + (__u16)~bpf_htons(0x0100);

	ip->ttl--;
	ip->check = ~(__u16)(sum + (sum >> 16));
}

SEC("xdp")
int l3_router(struct xdpkit_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct bpf_fib_lookup fib = {.ifindex = ctx->ingress_ifindex};
	struct ethhdr *ethernet = data;
	__u32 port;

	if ((void *)(ethernet + 1) > end || !is_for_port(ethernet, ctx->port_index))
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		if (!read_ipv4((void *)(ethernet + 1), end, &fib))
			return XDP_PASS;
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (!read_ipv6((void *)(ethernet + 1), end, &fib))
			return XDP_PASS;
	} else {
		return XDP_PASS;
	}

	switch (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
	/* Back where it came from: the stack tells the sender of the shorter way, too. */
	if (fib.ifindex == ctx->ingress_ifindex)
		return XDP_PASS;
	port = xdpkit_port_of(fib.ifindex);
	if (port == XDPKIT_NO_PORT)
		return XDP_PASS;

	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		decrease_ttl((void *)(ethernet + 1));
	else
		((struct ipv6hdr *)(ethernet + 1))->hop_limit--;
	__builtin_memcpy(ethernet->h_dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, fib.smac, ETH_ALEN);
	return xdpkit_redirect_to_port(port);
}

char _license[] SEC("license") = "Dual BSD/GPL";
