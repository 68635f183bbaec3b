#include "clocks.hpp"

namespace vg {

u32 *clocks, *proxied;

struct Reader {
  u32 time;
  u16 agent;
  u8 mask;
};
struct Cell {  // a word of shared memory
  u32 block, time;
  u16 agent;
  u8 mask;
  Reader readers[4];
};
static Cell *cells;

void begin_block_clocks() {
  if (!clocks) {
    clocks = (u32 *)reserve(1024ull * AGENTS * 4), proxied = (u32 *)reserve(1024ull * AGENTS * 4);
    cells = (Cell *)reserve((SHARED_MOST / 4 + 1024) * sizeof(Cell));
  }
  memset(clocks, 0, (u64)threads * AGENTS * 4), memset(proxied, 0, (u64)threads * AGENTS * 4);
  for (u32 i = 0; i < threads; i++) clock_of(i)[i] = 1;
}

__attribute__((optimize("O3"))) void most(u32 *__restrict a, const u32 *__restrict b, u32 n) {
  for (u32 i = 0; i < n; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
}

void learn(std::vector<u32> &to, const u32 *from) {
  if (to.empty()) to.assign(from, from + AGENTS);
  else most(to.data(), from, AGENTS);
}
void learn_from(u32 t, const std::vector<u32> &vc, const std::vector<u32> &fences) {
  most(clock_of(t), vc.data(), AGENTS), most(proxied_of(t), fences.data(), AGENTS);
}

void warp_met(u32 warp, u32 there) {
  meet([&](u32 i) { return i / 32 == warp && (there >> i % 32 & 1); });
}

static string agent_name(u32 a) {
  if (a < 1024) return "thread " + std::to_string(a);
  if (a < 1024 + BULK) return "a bulk copy";
  return "a wgmma of warpgroup " + std::to_string(a - 1024 - BULK);
}

static void clocked_race(u32 by, u32 other, const string &what, const char *verb, u32 line) {
  bool warp = by < 1024 && other < 1024 && by / 32 == other / 32;
  find(warp ? "race in shared memory, within a warp" : "race in shared memory", line,
       what + ", that " + agent_name(other) + " " + verb + ", with nothing that orders the two", !warp);
}

static Cell &cell_of(u64 word) {
  Cell &c = cells[word];
  if (c.block != serial) memset(&c, 0, sizeof c), c.block = serial;
  return c;
}

static string text(const Access &a) { return shared_text(a.what, a.at, a.size); }

void clocked_read(u64 word, u8 mask, const Access &a) {
  Cell &c = cell_of(word);
  if (c.time && (c.mask & mask) && c.agent != a.agent) {
    if (UNLIKELY_(a.vc[c.agent] < c.time)) clocked_race(a.agent, c.agent, text(a), "writes", a.line);
    else if (a.fences && c.agent < 1024 && UNLIKELY_(a.fences[c.agent] < c.time))
      find("no proxy fence", a.line, text(a) + ", that " + agent_name(c.agent) + " writes, with no fence.proxy.async between");
  }
  Reader *free = nullptr;
  for (Reader &r : c.readers) {
    if (r.time && r.agent == a.agent) {
      r.mask = r.time == a.time ? r.mask | mask : mask;
      r.time = a.time;
      return;
    }
    if (!free && (!r.time || a.vc[r.agent] >= r.time)) free = &r;
  }
  if (!free) free = &c.readers[word & 3];
  *free = {a.time, (u16)a.agent, mask};
}
void clocked_write(u64 word, u8 mask, const Access &a, bool atomic) {
  Cell &c = cell_of(word);
  if (c.time && (c.mask & mask) && c.agent != a.agent && !atomic) {
    if (UNLIKELY_(a.vc[c.agent] < c.time)) clocked_race(a.agent, c.agent, text(a), "writes", a.line);
    else if (a.fences && c.agent < 1024 && UNLIKELY_(a.fences[c.agent] < c.time))
      find("no proxy fence", a.line, text(a) + ", that " + agent_name(c.agent) + " writes, with no fence.proxy.async between");
  }
  for (Reader &r : c.readers)
    if (r.time && r.agent != a.agent && (r.mask & mask) && UNLIKELY_(a.vc[r.agent] < r.time))
      clocked_race(a.agent, r.agent, text(a), "reads", a.line);
  if (atomic) return;
  if (c.time && c.agent == a.agent && c.time == a.time) c.mask |= mask;
  else c.mask = mask;
  c.agent = (u16)a.agent, c.time = a.time;
}

static Access by_thread(const char *what, u64 address, u32 n, u32 line) {
  u32 t = current->index;
  return {t, clock_of(t)[t], clock_of(t), nullptr, what, address, n, line};
}
void thread_reads(u64 word, u8 mask, u64 address, u32 n, u32 line) { clocked_read(word, mask, by_thread("a read", address, n, line)); }
void thread_writes(u64 word, u8 mask, u64 address, u32 n, u32 line, bool atomic) {
  clocked_write(word, mask, by_thread("a write", address, n, line), atomic);
}

}  // namespace vg
