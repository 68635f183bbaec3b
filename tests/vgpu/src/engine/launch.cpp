// A launch runs its blocks one after the other, and a block its threads by turns until all have ended.
#include "launch.hpp"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <map>

#include "block.hpp"
#include "copies.hpp"
#include "stats.hpp"

namespace vg {

static void begin() {
  Fiber *f = current;
  kernel->entry(f, parameters_now);
  vg_exit();
}

static void run_block(u32 x, u32 y, u32 z) {
  block.ctaid[0] = x, block.ctaid[1] = y, block.ctaid[2] = z;
  epoch++, gone = 0;
  memset(shared_memory, 0xff, block.shared_size);
  memset(warp_epoch, 0, sizeof warp_epoch);
  forget_barriers();
  begin_block_copies();
  u64 last_progress = progress;
  u32 idle = 0;
  for (u32 i = 0; i < threads; i++) {
    Fiber &f = fibers[i];
    f.state = READY, f.waited = false;
    prepare_fiber(f, begin);
  }
  u32 warps = (threads + 31) / 32;
  while (!broken) {
    for (u32 w = 0; w < warps && !broken; w++) {
      u32 from = w * 32, to = std::min(threads, from + 32);
      for (bool ran = true; ran && !broken;) {
        ran = false;
        for (u32 i = from; i < to && !broken; i++)
          if (fibers[i].state == READY) run_fiber(&fibers[i]), ran = true;
        if (UNLIKELY_(opt.stats) && !ran) close_requests();
        if (!ran)  // a lane may have waited for one that has gone
          for (u32 i = from; i < to; i++)
            if (fibers[i].state == AT_WARP && complete(&fibers[i])) {
              ran = true;
              break;
            }
      }
    }
    if (broken || gone == threads) return;
    bool opened = open_barriers(), polls = false;
    if (opened || progress != last_progress) idle = 0;
    if (opened || idle < 3)
      for (u32 i = 0; i < threads; i++)
        if (fibers[i].state == POLLING) fibers[i].state = READY, polls = true;
    if (polls && progress == last_progress) idle++;
    last_progress = progress;
    if (opened || polls) continue;
    bool ready = false;
    for (u32 i = 0; i < threads; i++) ready |= fibers[i].state == READY;
    if (ready) continue;
    string who;
    Fiber *first = nullptr;
    std::map<std::pair<int, u32>, u32> waits;
    for (u32 i = 0; i < threads; i++)
      if (fibers[i].state != GONE) {
        if (!first) first = &fibers[i];
        waits[{fibers[i].state, fibers[i].line}]++;
      }
    for (auto &p : waits)
      who += std::to_string(p.second) + " threads wait at line " + std::to_string(p.first.second) +
             (p.first.first == AT_WARP   ? " for their warp; "
              : p.first.first == POLLING ? " for an mbarrier or a time; "
                                         : " at a barrier; ");
    current = first;
    find("deadlock", first->line, who + std::to_string(gone) + " have ended");
    broken = true;
    if (!outcome) outcome = 719;
  }
}

void restart_serials() {
  if (serial < 0x7f000000u) return;
  serial = 0;
  forget_tags();
  if (shared_words) memset(shared_words, 0, (SHARED_MOST / 4) * sizeof(Word));
  order::restart();
}

uint32_t next_serial() { return serial + 1; }

int launch(Kernel &k, const Launch &s, const u8 *parameters) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  prepare_memory();
  u32 n = s.block[0] * s.block[1] * s.block[2];
  kernel = &k, shape = &s, threads = n;
  memcpy(block.ntid, s.block, sizeof block.ntid);
  memcpy(block.nctaid, s.grid, sizeof block.nctaid);
  u32 most = k.static_shared;
  for (auto &l : k.shared_layout) k.code->shareds[l.first] = l.second, most = std::max(most, l.second);
  block.shared_size = most + s.dynamic_shared, block.dynamic_size = s.dynamic_shared;
  if (!shared_memory) {
    shared_memory = (u8 *)reserve(SHARED_MOST + 4096);
    shared_words = (Word *)reserve((SHARED_MOST / 4 + 1024) * sizeof(Word));
    fibers = (Fiber *)reserve(1024 * sizeof(Fiber));
    in_flight = (u8 *)reserve(SHARED_MOST / 4 + 4096);
  }
  block.shared = shared_memory;
  u64 frame = 0;
  for (auto &f : k.code->module.functions) frame += f.registers * 8ull + f.local_bytes + 64;
  prepare_stacks(n, 64 * 1024 + 2 * frame);
  for (u32 i = 0; i < n; i++) {
    Fiber &f = fibers[i];
    f.tid[0] = i % s.block[0], f.tid[1] = i / s.block[0] % s.block[1], f.tid[2] = i / s.block[0] / s.block[1];
    f.lane = i % 32, f.warp = i / 32, f.index = i;
    f.b = &block;
    f.pred = 0, f.op = 0;
  }
  std::vector<u8> own(parameters, parameters + k.function->param_bytes);
  own.resize(own.size() + 16);
  parameters_now = own.data();
  broken = false, outcome = 0, fenced = false;
  clocked = k.code->module.clocks;
  restart_serials();
  first_serial = serial + 1;
  unfinished = s.unfinished, any_waited = false;
  u64 blocks = (u64)s.grid[0] * s.grid[1] * s.grid[2];
  u64 step = 1, start = 0;
  if (options().order == 1) start = blocks - 1, step = blocks - 1;  // backward, modulo the number of blocks
  else if (options().order > 1) {
    step = (u64)options().order * 2654435761u % blocks;
    auto common = [](u64 a, u64 b) {
      while (b) {
        u64 c = a % b;
        a = b, b = c;
      }
      return a;
    };
    while (step == 0 || common(step, blocks) != 1) step = step % blocks + 1;
    start = (u64)options().order * 40503u % blocks;
  }
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  uint64_t before = findings;
  u64 run = opt.blocks ? std::min<u64>(blocks, opt.blocks) : blocks;
  if (run < blocks) log("of %llu blocks the first and last %llu are run", (unsigned long long)blocks, (unsigned long long)run / 2);
  for (u64 i = 0; i < run && !broken; i++) {
    u64 at = i < (run + 1) / 2 ? i : blocks - run + i, j = (u64)((start + (u128)at * step) % blocks);
    serial++;
    run_block(j % s.grid[0], j / s.grid[0] % s.grid[1], j / s.grid[0] / s.grid[1]);
  }
  if (unfinished && !any_waited && !broken)
    find("no griddepcontrol.wait", 0, "the launch may begin before the one before it has ended, and never waits for it");
  if (opt.stats) end_launch_stats();
  launches_done++, blocks_done += blocks;
  static int registered = atexit(at_end);
  (void)registered;
  clock_gettime(CLOCK_MONOTONIC, &b);
  log("launched %s: %llu blocks of %u threads, %u bytes of shared memory, %.3f s%s", k.name.c_str(), (unsigned long long)blocks, n,
      block.shared_size, (b.tv_sec - a.tv_sec) + 1e-9 * (b.tv_nsec - a.tv_nsec), findings > before ? ", WITH FINDINGS" : "");
  return outcome;
}

}  // namespace vg
