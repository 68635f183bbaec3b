// Clocks for the threads of a block, where more than barriers of the whole block orders them: launches with mbarriers, named barriers or
// wgmma. Each thread knows of every other how much of what that did lies before what itself does now.
#pragma once
#include <string.h>

#include <vector>

#include "block.hpp"

#pragma GCC visibility push(hidden)
namespace vg {

// Who does things in a block: its threads, then the bulk copies of each mbarrier, then the tensor cores of each warpgroup.
const u32 BULK = 32, GROUPS = 8, AGENTS = 1024 + BULK + GROUPS;
extern u32 *clocks, *proxied;  // of each thread: what it comes after; and what of that lies behind a proxy fence
inline u32 *clock_of(u32 t) { return clocks + (u64)t * AGENTS; }
inline u32 *proxied_of(u32 t) { return proxied + (u64)t * AGENTS; }
inline void released(u32 t) { clock_of(t)[t]++; }
void most(u32 *__restrict a, const u32 *__restrict b, u32 n);  // of each pair, into a

void begin_block_clocks();
void thread_reads(u64 word, u8 mask, u64 address, u32 n, u32 line);
void thread_writes(u64 word, u8 mask, u64 address, u32 n, u32 line, bool atomic);

// An access by `agent` at its `time`, made for a thread that knows `vc`. Asynchronous ones need a proxy fence behind what threads wrote.
struct Access {
  u32 agent, time;
  const u32 *vc, *fences;
  const char *what;  // it is, for a finding
  u64 at;
  u32 size, line;
};
void clocked_read(u64 word, u8 mask, const Access &a);
void clocked_write(u64 word, u8 mask, const Access &a, bool atomic = false);

// Threads that meet: afterwards each knows what all knew. Those of a set, given by a test.
template <class F> void meet(F there) {
  static u32 all[AGENTS], fences[AGENTS];
  memset(all, 0, sizeof all), memset(fences, 0, sizeof fences);
  for (u32 i = 0; i < threads; i++)
    if (there(i)) most(all, clock_of(i), AGENTS), most(fences, proxied_of(i), AGENTS);
  for (u32 i = 0; i < threads; i++)
    if (there(i)) memcpy(clock_of(i), all, sizeof all), memcpy(proxied_of(i), fences, sizeof fences), released(i);
}
void learn(std::vector<u32> &to, const u32 *from);
void learn_from(u32 t, const std::vector<u32> &vc, const std::vector<u32> &fences);

}  // namespace vg
#pragma GCC visibility pop
