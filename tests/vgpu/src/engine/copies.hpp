// Asynchronous copies, and the mbarriers that say when they have arrived.
#pragma once
#include "block.hpp"

#pragma GCC visibility push(hidden)
namespace vg {

void begin_block_copies();
inline u32 shared_offset(u64 a) { return (u32)(a - SHARED_BASE < (1ull << 32) ? a - SHARED_BASE : a); }
void shared_range(const char *what, u64 address, u32 n, u32 align, u32 line);  // all of it in the block's shared memory

}  // namespace vg
#pragma GCC visibility pop
