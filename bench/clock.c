// SPDX-License-Identifier: Apache-2.0
/*
 * Preloaded: a syscall() that adds up the time spent in bpf(2). libbpf and Python's ctypes both
 * make that call through this function, so the kernel's part can be taken off both alike.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/syscall.h>
#include <time.h>

unsigned long long bpf_nanoseconds, bpf_calls;

static unsigned long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

long syscall(long number, long a, long b, long c, long d, long e, long f)
{
	static long (*next)(long, ...);
	unsigned long long start;
	long result;

	if (!next)
		next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	start = now();
	result = next(number, a, b, c, d, e, f);
	if (number == SYS_bpf) {
		bpf_nanoseconds += now() - start;
		bpf_calls++;
	}
	return result;
}
