// Copies of a thread (cp.async). They are done as late as may be: when their thread waits for the group, or when somebody asks the mbarrier
// that counts them. Whoever looks earlier sees what was there before, and a finding is printed.
#include "copies.hpp"

#include <stdio.h>
#include <string.h>

#include "matrices.hpp"
#include "mbarriers.hpp"

namespace vg {

static std::vector<std::vector<std::shared_ptr<Copy>>> copies(1024);
static u32 groups_committed[1024];

void begin_block_copies() {
  begin_block_mbarriers();
  if (any_in_flight) {
    memset(in_flight, 0, SHARED_MOST / 4 + 16);
    any_in_flight = false;
    for (auto &c : copies) c.clear();
  }
  memset(groups_committed, 0, sizeof groups_committed);
  begin_block_matrices();
  if (clocked) begin_block_clocks();
}

void shared_range(const char *what, u64 address, u32 n, u32 align, u32 line) {
  if (address % align || address + n > block.shared_size) {
    char b[160];
    snprintf(b, sizeof b, "%s of %u bytes at %llu of shared memory, of which the block has %u bytes", what, n, (unsigned long long)address,
             block.shared_size);
    find(address % align ? "misaligned access" : "access out of bounds", line, b);
    die(address % align ? 716 : 700);
  }
}

void fly(u32 to, u32 n, int by) {
  for (u32 w = to >> 2; w <= (to + n - 1) >> 2; w++) in_flight[w] += by;
  any_in_flight = true;
}

void land(Copy &c) {
  if (c.landed) return;
  c.landed = true;
  fly(c.to, c.n, -1);
  progress++;
  memcpy(shared_memory + c.to, c.data, c.n);
}

// The shadow of what has landed: written by the copy's thread, at a time of its clock.
void landed(const Copy &c, u32 time, const u32 *vc) {
  Fiber *self = current;
  current = &fibers[c.thread];
  for (u32 w = c.to >> 2; w <= (c.to + c.n - 1) >> 2; w++) {
    Word &s = shared_words[w];
    if (s.block != serial) s.block = serial, s.written = 0;
    s.written = 15;
    if (!opt.racecheck) continue;
    if (clocked) {
      clocked_write(w, 15, {c.thread, time, vc, nullptr, "the end of an asynchronous copy", c.to, c.n, c.line});
    } else note_shared_write(s, 15, c.to, c.n, c.line);
  }
  current = self;
}

extern "C" {

void vg_cp_async(u64 to64, u64 from, u32 n, u32 source, u32 line) {
  u32 to = shared_offset(to64), t = current->index;
  if (source > n) {
    find("a source larger than its copy", line, std::to_string(source) + " bytes of " + std::to_string(n));
    die(719);
  }
  shared_range("a cp.async", to, n, n, line);
  if (from % n && source) { outside("a read", from, n, line); }
  auto c = std::make_shared<Copy>();
  c->to = to, c->n = n, c->line = line, c->thread = t, c->landed = false, c->group = 0;
  memset(c->data, 0, sizeof c->data);
  if (source == n) memcpy(c->data, vg_ld_global(from, n, line), n);
  else
    for (u32 i = 0; i < source;) {
      u32 k = source - i >= 4 ? 4 : 1;
      memcpy(c->data + i, vg_ld_global(from + i, k, line), k), i += k;
    }
  if (opt.racecheck)
    for (u32 w = to >> 2; w <= (to + n - 1) >> 2; w++) {
      if (UNLIKELY_(in_flight[w]))
        find("race in shared memory", line, shared_text("a cp.async", to, n) + ", that another asynchronous copy is still writing");
      if (clocked) thread_writes(w, 15, to, n, line, false);
      else {
        u8 written = shared_words[w].block == serial ? shared_words[w].written : 0;
        note_shared_write(shared_words[w], 15, to, n, line);
        shared_words[w].written = written;
      }
    }
  fly(to, n, 1);
  copies[t].push_back(std::move(c));
}
void vg_cp_commit(void) {
  u32 t = current->index, g = ++groups_committed[t];
  for (auto i = copies[t].rbegin(); i != copies[t].rend() && !(*i)->group; ++i) (*i)->group = g;
}
void vg_cp_wait(u32 left, int all, u32) {
  u32 t = current->index, until = groups_committed[t] > left ? groups_committed[t] - left : 0;
  auto &mine = copies[t];
  size_t kept = 0;
  for (auto &c : mine) {
    if (c->landed) continue;
    // An mbarrier that counts a copy orders its writes, whoever comes first to wait for it.
    if (all || (c->group && c->group <= until)) {
      land(*c);
      if (c->counted) landed(*c, c->time, c->counted->data());
      else landed(*c, clocked ? clock_of(t)[t] : 0, clocked ? clock_of(t) : nullptr);
    } else mine[kept++] = c;
  }
  mine.resize(kept);
}
void vg_cp_arrive(u64 at, int noinc, u32 line) {
  u32 t = current->index;
  Mbarrier &m = mbarrier_at(at, line);
  Event e{copies[t],
          t,
          clock_of(t)[t],
          line,
          0,
          true,
          {},
          std::vector<u32>(clock_of(t), clock_of(t) + AGENTS),
          std::vector<u32>(proxied_of(t), proxied_of(t) + AGENTS)};
  auto counted = std::make_shared<const std::vector<u32>>(e.vc);
  for (auto &c : e.copies)
    if (!c->landed && !c->counted) c->counted = counted, c->time = e.time;
  released(t);
  if (!noinc) m.pending++;
  m.events.push_back(std::move(e));
  progress++;
}

}  // extern "C"

}  // namespace vg
