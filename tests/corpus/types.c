// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compilers: clang zig
// Kinds of types beyond the everyday ones, in variables, maps and functions.
#include "corpus.h"

#define tagged(text) __attribute__((btf_decl_tag(text)))
#define type_tagged(text) __attribute__((btf_type_tag(text)))

enum wide { WIDE_SMALL = 1, WIDE_LARGE = 1ULL << 40 };
enum negative { NEGATIVE_LEAST = -(1LL << 40), NEGATIVE_MOST = 7 };

struct opaque_thing;

union word {
	__u64 whole;
	__u32 halves[2];
	struct {
		__u64 low : 20, middle : 24, high : 20;
	};
};

struct node {
	union word word tagged("member");
	struct node type_tagged("user") *next;
	struct opaque_thing *restrict hidden_behind;
	int (*function)(const char *, ...);
	char *const *volatile names;
	__u8 matrix[2][3];
	__s8 : 3, small : 2;
	__u8 tail[];
} tagged("structure");

typedef union word word_t tagged("alias");

const volatile enum wide wide = WIDE_LARGE;
const volatile enum negative negative = NEGATIVE_LEAST;
const volatile double ratio = 0.25;
const volatile float rough = 1.5f;
volatile unsigned __int128 huge = (unsigned __int128)7 << 90;
volatile word_t word tagged("variable") = {.whole = 0x123456789abcdefULL};
volatile __u8 matrix[2][3] = {{1, 2, 3}, {4, 5, 6}};

struct {
	ATTR_UINT(type, MAP_HASH);
	ATTR_UINT(max_entries, 4);
	ATTR_TYPE(key, word_t);
	ATTR_TYPE(value, struct node);
} a_map_whose_name_is_longer_than_the_kernels_names SEC(".maps");

static noinline tagged("function") int weigh(struct node *node tagged("argument"))
{
	opaque(node);
	return node->small + node->matrix[1][2];
}

SEC("xdp") int types(struct xdp_md *ctx)
{
	static volatile __u32 calls;
	word_t key = {.low = 1, .high = 2};
	struct node *node;

	calls++;
	node = bpf_map_lookup_elem(&a_map_whose_name_is_longer_than_the_kernels_names, &key);
	if (!node)
		return word.halves[1] && wide == WIDE_LARGE ? XDP_PASS : XDP_DROP;
	return weigh(node) & 1;
}

char _license[] SEC("license") = "GPL";
