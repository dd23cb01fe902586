// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Values of the kernel's configuration, and the loader's own.
#include "corpus.h"

enum libbpf_tristate { TRI_NO = 0, TRI_YES = 1, TRI_MODULE = 2 };

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_BPF_JIT __kconfig;
extern int CONFIG_HZ __kconfig;
extern char CONFIG_DEFAULT_HOSTNAME[16] __kconfig weak;
extern char CONFIG_XDP_SOCKETS __kconfig weak;
extern unsigned long long CONFIG_NO_SUCH_NUMBER __kconfig weak;
extern bool CONFIG_NO_SUCH_SWITCH __kconfig weak;
extern bool LINUX_HAS_BPF_COOKIE __kconfig weak;

SEC("xdp") int kconfig(struct xdp_md *ctx)
{
	__u64 value = LINUX_KERNEL_VERSION;

	if (!CONFIG_BPF_SYSCALL || CONFIG_BPF_JIT == TRI_NO || CONFIG_XDP_SOCKETS == 'n')
		return XDP_ABORTED;
	value += CONFIG_HZ + CONFIG_DEFAULT_HOSTNAME[ctx->rx_queue_index & 15];
	if (CONFIG_NO_SUCH_NUMBER || CONFIG_NO_SUCH_SWITCH || !LINUX_HAS_BPF_COOKIE)
		return XDP_DROP;
	return value > 0x60000 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
