// What warps ask of memory, under VGPU_STATS=1, and what is said at the end of a process.
#pragma once
#include "device/device.h"

#pragma GCC visibility push(hidden)
namespace vg {

void request(u64 address, u32 n, u32 line, bool shared, bool store);
void close_requests();  // when a warp waits
void end_launch_stats();

extern uint64_t places_found;
bool any_findings();
extern u64 launches_done, blocks_done;
void at_end();

}  // namespace vg
#pragma GCC visibility pop
