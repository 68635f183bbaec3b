// Tensor cores and matrices in shared memory: what a whole warp does.
#pragma once
#include "block.hpp"

#pragma GCC visibility push(hidden)
namespace vg {

void begin_block_matrices();
void collective(Fiber *f, Fiber *warp, u32 there);  // an operation from 512 on

}  // namespace vg
#pragma GCC visibility pop
