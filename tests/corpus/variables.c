// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Global variables of all storage classes, sizes and shapes.
#include "corpus.h"

enum verdict { VERDICT_NONE = -1, VERDICT_PASS = 7 };

struct settings {
	__u32 threshold;
	__u8 flags : 3, level : 5;
	__s64 delta;
	char label[8];
	struct {
		__u16 low, high;
	} range[2];
};

__u64 counted;
static __u32 calls;
volatile __s32 signed_result = -5;
static volatile __u8 small_state = 3;
bool enabled = true;
enum verdict verdict = VERDICT_PASS;
__u32 table[4] = {1, 2, 3, 4};
struct settings current = {.threshold = 10, .level = 9, .delta = -1, .label = "first", .range = {{}, {5, 6}}};
struct settings zeroed;

const volatile __u32 result_code = XDP_PASS;
const volatile __s64 negative = -1234567890123LL;
const volatile char label[16] = "corpus";
const volatile struct settings fixed = {.threshold = 77, .range = {{1, 2}, {3, 4}}};
static const volatile __u16 hidden_constant = 0xbeef;

SEC("xdp") int variables(struct xdp_md *ctx)
{
	__u32 index = ctx->rx_queue_index & 3;

	counted++;
	calls += table[index];
	small_state ^= 1;
	signed_result = negative + fixed.range[1].high;
	zeroed.delta = current.delta + hidden_constant;
	zeroed.range[1].low = current.range[index & 1].low;
	if (enabled && verdict == VERDICT_PASS)
		current.level += calls;
	return label[index] == 'x' ? XDP_ABORTED : result_code;
}

char _license[] SEC("license") = "GPL";
