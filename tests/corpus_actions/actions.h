/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs with known answers. The comment before each says what it can return, whatever the
 * packet is and whatever is in its maps: actions by name, other codes as unsigned numbers; "any"
 * where it is any value.
 */
#pragma once
#include "corpus.h"

/* What a program's choice depends on: the first word of the packet. */
static inlined __u32 input(struct xdp_md *ctx)
{
	__u32 *word = (void *)(long)ctx->data;

	return (void *)(word + 1) > (void *)(long)ctx->data_end ? 0 : *word;
}
