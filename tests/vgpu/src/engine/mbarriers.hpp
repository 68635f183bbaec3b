// What copies.cpp and bulk_copies.cpp share: mbarriers, and what has still to arrive at them.
#pragma once
#include <memory>
#include <vector>

#include "clocks.hpp"
#include "copies.hpp"

#pragma GCC visibility push(hidden)
namespace vg {

struct Copy {
  u32 to, n, line, thread;
  u32 group;
  bool landed;
  u8 data[16];
  std::shared_ptr<const std::vector<u32>> counted;  // the clock of its thread when an mbarrier began to count it, if one does
  u32 time;                                         // and its own time then
};
struct Event {  // what an mbarrier waits for: copies of a thread, or a bulk copy
  std::vector<std::shared_ptr<Copy>> copies;
  u32 thread, time, line, to;
  bool arrives;
  std::vector<u8> bytes;
  std::vector<u32> vc, fences;
};
struct Mbarrier {
  u32 expected = 0, pending = 0, phase = 0, agent = 0, bulks = 0, maker = 0, made = 0;
  s64 tx = 0;
  std::vector<u32> next, next_fences, done, done_fences;
  std::vector<Event> events;
};

Mbarrier &mbarrier_at(u64 a, u32 line);
void poll(Mbarrier &m, u32 at);   // what has come to it by now lands
void fly(u32 to, u32 n, int by);  // more or fewer copies are on their way to these bytes
void landed(const Copy &c, u32 time, const u32 *vc);
void land(Copy &c);
void begin_block_mbarriers();

}  // namespace vg
#pragma GCC visibility pop
