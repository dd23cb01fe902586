// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The demo's program with a mistake: for UDP datagrams to one port it returns 42, which is no
 * action. It reads IPv4 without options and VLAN tags only, and lets all else pass.
 */
#include <xdpkit.h>

/* Set before the load; in host byte order. 0 harms nothing. */
const volatile __u16 harmed_port = 53;

SEC("xdp")
int faulty(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (harmed_port && udp->dest == bpf_htons(harmed_port))
		return 42;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
