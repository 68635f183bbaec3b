// Barriers of the block: all threads, or as many as they say.
#include <string.h>

#include <map>
#include <vector>

#include "block.hpp"
#include "clocks.hpp"
#include "source.hpp"

namespace vg {

static u32 waiting_at[16], arrived_at[16];
static std::vector<u32> arrived_clock[16], arrived_fences[16];

static void open_barrier(u32 id, u32 waiting) {
  u32 popc = 0;
  auto here = [&](u32 i) { return fibers[i].state == AT_BARRIER && fibers[i].barrier == id; };
  for (u32 i = 0; i < threads; i++) popc += here(i) && fibers[i].op && fibers[i].pred;
  if (clocked) {
    if (!arrived_clock[id].empty())
      for (u32 i = 0; i < threads; i++)
        if (here(i)) {
          learn_from(i, arrived_clock[id], arrived_fences[id]);
          break;
        }
    arrived_clock[id].clear(), arrived_fences[id].clear();
    meet(here);
  }
  for (u32 i = 0; i < threads; i++) {
    if (!here(i)) continue;
    Fiber &f = fibers[i];
    f.state = READY;
    f.result = f.op == 'p' ? popc : f.op == 'a' ? popc == waiting : popc != 0;
  }
  waiting_at[id] = arrived_at[id] = 0;
  epoch++;
  progress++;
}

// Threads that wait for a count go on as soon as so many have come.
static void counted(u32 id, u32 count, u32 line) {
  u32 there = waiting_at[id] + arrived_at[id];
  if (there > count)
    find("divergence at a barrier", line,
         std::to_string(there) + " threads have come to barrier " + std::to_string(id) + ", which waits for " + std::to_string(count));
  if (there >= count) open_barrier(id, waiting_at[id]);
}

static void at_barrier(u32 id, u32 count, int op, u32 line) {
  Fiber *f = current;
  if (id > 15 || count % 32) {
    find("divergence at a barrier", line,
         "barrier " + std::to_string(id) + " for " + std::to_string(count) + " threads: there are 16, and counts are multiples of 32");
    die(719);
  }
  f->barrier = id, f->expected = count, f->line = line, f->op = op;
  f->state = AT_BARRIER;
  waiting_at[id]++;
  if (count) counted(id, count, line);
  if (f->state == AT_BARRIER) leave();
}

// Every thread that is left waits, and no warp can go on by itself: opens the barrier that all have come to. False where none opens.
bool open_barriers() {
  bool opened = false;
  for (u32 id = 0; id < 16; id++) {
    u32 waiting = 0, line = 0;
    bool mixed = false, counts = false;
    Fiber *first = nullptr;
    if (!waiting_at[id]) continue;
    for (u32 i = 0; i < threads; i++) {
      Fiber &f = fibers[i];
      if (f.state != AT_BARRIER || f.barrier != id) continue;
      if (!first) first = &f, line = f.line;
      mixed |= f.line != line, counts |= f.expected != 0;
      waiting++;
    }
    if (!waiting || (counts ? waiting + arrived_at[id] < first->expected : waiting + gone < threads)) continue;
    if (opt.synccheck && !counts && (mixed || gone)) {
      current = first;
      find("divergence at a barrier", line,
           mixed ? "threads of the block wait at different barriers"
                 : std::to_string(gone) + " threads of the block have ended, and " + std::to_string(waiting) + " wait");
    }
    open_barrier(id, waiting);
    opened = true;
  }
  return opened;
}

void forget_barriers() {
  memset(waiting_at, 0, sizeof waiting_at), memset(arrived_at, 0, sizeof arrived_at);
  for (auto &c : arrived_clock) c.clear();
  for (auto &c : arrived_fences) c.clear();
}

// Whether a barrier is the one that a test takes out, to see that it is missed.
static bool left_out(u32 line) {
  static std::map<std::pair<string, u32>, bool> known;
  auto i = known.emplace(std::make_pair(kernel->code->path, line), false);
  if (i.second) i.first->second = source_of(kernel->code->module.lines, line) == opt.without;
  return i.first->second;
}

extern "C" {

void vg_barrier(u32 id, u32 count, int mode, u32 line) {
  if (UNLIKELY_(!opt.without.empty()) && left_out(line)) return;
  if (mode == 0) return at_barrier(id, count, 0, line);
  if (id > 15 || count % 32 || !count) {
    find("divergence at a barrier", line, "bar.arrive at barrier " + std::to_string(id) + " for " + std::to_string(count) + " threads");
    die(719);
  }
  arrived_at[id]++;
  if (clocked) {
    learn(arrived_clock[id], clock_of(current->index)), learn(arrived_fences[id], proxied_of(current->index));
    released(current->index);
  }
  counted(id, count, line);
}

u32 vg_barrier_red(u32 id, u32 count, int op, u32 pred, u32 line) {
  current->pred = pred;
  at_barrier(id, count, op, line);
  return current->result;
}

}  // extern "C"

}  // namespace vg
