// Tensor cores and matrices in shared memory: what a whole warp does.
#pragma once
#include "block.hpp"

#pragma GCC visibility push(hidden)
namespace vg {

extern u32 wgmma_groups[1024], wgmma_done[1024];  // how many groups a thread has committed, and how many of them it has waited for
void begin_block_matrices();
void collective(Fiber *f, Fiber *warp, u32 there);  // an operation from 512 on

}  // namespace vg
#pragma GCC visibility pop
