// Accesses to global memory: bounds, alignment, what was never written, and races within a launch and between operations.
#include <string.h>

#include "block.hpp"
#include "stats.hpp"

namespace vg {

static u8 nowhere[64];

u8 *outside(const char *what, u64 address, u32 n, u32 line) {
  if (n && (address & (n - 1)) && !(n & (n - 1)) && in_arena(address)) {
    find("misaligned access", line, access_text(what, address, n) + near(address));
    die(716);
  }
  if (!opt.memcheck && in_arena(address) && in_arena(address + n)) return (u8 *)address;
  const Allocation *own = find_allocation(address);
  if (own && !in_arena(address) && address + n <= own->base + own->size) return (u8 *)address;  // memory of the host's that is registered
  find("access out of bounds", line, access_text(what, address, n) + near(address));
  if (opt.strict) die(700);
  memset(nowhere, 0xff, sizeof nowhere);
  return nowhere;
}

// An access to a word that another operation used, with no order between the two.
static void unordered_access(u32 by, const char *verb, const char *what, u64 address, u32 n, u32 line) {
  const order::Op *op = order::unordered(by);
  if (op) find("no order between streams", line, access_text(what, address, n) + near(address) + order::unordered_text(*op, verb));
}
void keep_reader(u64 word, u32 r) {
  if (!order::unordered(r) || order::unordered(others[word])) return;
  others[word] = r;
  any_others = true;
}

// An access, in a launch that may begin early, by a thread that has not waited for what comes before.
static void early_access(u64 word, bool writes, u64 address, u32 n, u32 line) {
  u32 w = tags[word].w & ~ATOMICALLY, r = tags[word].r & ~ATOMICALLY;
  bool written = w >= unfinished && w < first_serial, read = writes && r >= unfinished && r < first_serial;
  if (written || read)
    find("no griddepcontrol.wait", line,
         access_text(writes ? "a write" : "a read", address, n) + near(address) + ", that the launch before " +
             (written ? "writes" : "reads") + ", by a thread that has not waited for it");
}

// A race in global memory; the word's tag is brought up to date.
static inline void race_read(u64 word, u64 address, u32 n, u32 line, bool strong) {
  if (UNLIKELY_(unfinished) && !current->waited) early_access(word, false, address, n, line);
  Tag &g = tags[word];
  u32 w = g.w & ~ATOMICALLY;
  if (UNLIKELY_(order::maybe(w))) unordered_access(w, "writes", "a read", address, n, line);
  if (w >= first_serial && !fenced && opt.racecheck && !(strong && (g.w & ATOMICALLY))) {
    if (w != serial)
      find("race between blocks", line, access_text("a read", address, n) + near(address) + ", that another block of this launch writes");
    else if (g.w == serial && g.we == (u16)epoch && g.wt != current->index && g.wt / 32 != current->warp)
      find("race in global memory", line,
           access_text("a read", address, n) + near(address) + ", that " + thread_name(g.wt) +
               " of the block writes since the last barrier");
  }
  u32 r = g.r & ~ATOMICALLY;
  if (UNLIKELY_(order::maybe(r))) keep_reader(word, r);
  if (strong) {
    if (r < first_serial) g.r = serial, g.rt = STRONG, g.re = (u16)epoch;
  } else if (r < first_serial || g.rt == STRONG) g.r = serial, g.rt = current->index, g.re = (u16)epoch;
  else if (r != serial) g.r = serial | ATOMICALLY, g.rt = current->index, g.re = (u16)epoch;
  else if (g.re != (u16)epoch) g.rt = current->index, g.re = (u16)epoch;
  else if (g.rt != current->index)
    g.rt = g.rt / 32 == current->warp || g.rt == (SEVERAL_OF_WARP | current->warp) ? SEVERAL_OF_WARP | current->warp : SEVERAL;
}

// Of less than a word: between operations alone.
static inline void order_read(u64 word, u64 address, u32 n, u32 line) {
  if (UNLIKELY_(unfinished) && !current->waited) early_access(word, false, address, n, line);
  Tag &g = tags[word];
  u32 w = g.w & ~ATOMICALLY, r = g.r & ~ATOMICALLY;
  if (UNLIKELY_(order::maybe(w))) unordered_access(w, "writes", "a read", address, n, line);
  if (UNLIKELY_(order::maybe(r))) keep_reader(word, r);
  if (r < first_serial) g.r = serial, g.rt = current->index, g.re = (u16)epoch;
}
static inline void order_write(u64 word, u64 address, u32 n, u32 line) {
  if (UNLIKELY_(unfinished) && !current->waited) early_access(word, true, address, n, line);
  Tag &g = tags[word];
  u32 w = g.w & ~ATOMICALLY, r = g.r & ~ATOMICALLY;
  if (UNLIKELY_(order::maybe(w))) unordered_access(w, "writes", "a write", address, n, line);
  if (UNLIKELY_(order::maybe(r))) unordered_access(r, "reads", "a write", address, n, line);
  if (UNLIKELY_(any_others) && order::maybe(others[word])) unordered_access(others[word], "reads", "a write", address, n, line);
  if (w < first_serial) g.w = serial, g.wt = current->index, g.we = (u16)epoch;
}

static inline void race_write(u64 word, u64 address, u32 n, u32 line, bool atomic) {
  if (UNLIKELY_(unfinished) && !current->waited) early_access(word, true, address, n, line);
  Tag &g = tags[word];
  u32 w = g.w & ~ATOMICALLY, r = g.r & ~ATOMICALLY;
  if (UNLIKELY_(order::maybe(w)) && !(atomic && (g.w & ATOMICALLY))) unordered_access(w, "writes", "a write", address, n, line);
  if (UNLIKELY_(order::maybe(r))) unordered_access(r, "reads", "a write", address, n, line);
  if (UNLIKELY_(any_others) && order::maybe(others[word])) unordered_access(others[word], "reads", "a write", address, n, line);
  if (!fenced && opt.racecheck && !(atomic && (g.w & ATOMICALLY))) {
    if (w >= first_serial && w != serial)
      find("race between blocks", line, access_text("a write", address, n) + near(address) + ", that another block of this launch writes");
    else if (w == serial && g.we == (u16)epoch && g.wt != current->index && g.wt / 32 != current->warp)
      find("race in global memory", line,
           access_text("a write", address, n) + near(address) + ", that " + thread_name(g.wt) +
               " of the block writes since the last barrier");
  }
  if (!fenced && opt.racecheck && r >= first_serial && !(atomic && g.rt == STRONG)) {
    if (g.r != serial)
      find("race between blocks", line, access_text("a write", address, n) + near(address) + ", that another block of this launch reads");
    else if (g.re == (u16)epoch && g.rt != current->index && g.rt != (SEVERAL_OF_WARP | current->warp) &&
             (g.rt >= SEVERAL_OF_WARP || g.rt / 32 != current->warp))
      find("race in global memory", line,
           access_text("a write", address, n) + near(address) + ", that " + thread_name(g.rt) +
               " of the block reads since the last barrier");
  }
  g.w = serial | (atomic ? ATOMICALLY : 0);
  g.wt = current->index, g.we = (u16)epoch;
}

// `strong`: volatile, relaxed or acquire, which races with no atomic access and no other strong one.
static inline const u8 *load(u64 address, u32 n, u32 line, bool strong) {
  if (UNLIKELY_(opt.stats)) request(address, n, line, false, false);
  u64 off = address - arena;
  if (UNLIKELY_(off >= arena_size || (address & (n - 1)))) return outside("a read", address, n, line);
  u64 word = off >> 2;
  if (n >= 4) {
    for (u32 i = 0; i < n / 4; i++) {
      u8 m = marks[word + i];
      if (UNLIKELY_(m != 0xff)) {
        if ((m & 0xf0) != 0xf0) return outside("a read", address, n, line);
        if (opt.initcheck) find("uninitialized read", line, access_text("a read", address, n) + near(address + 4 * i));
      }
      if (opt.racecheck | opt.streamcheck) race_read(word + i, address, n, line, strong);
    }
  } else {
    u8 need = ((1 << n) - 1) << (off & 3), m = marks[word];
    if (UNLIKELY_(((m >> 4) & need) != need)) return outside("a read", address, n, line);
    if (UNLIKELY_((m & need) != need) && opt.initcheck) find("uninitialized read", line, access_text("a read", address, n) + near(address));
    if (opt.streamcheck) order_read(word, address, n, line);
  }
  return (const u8 *)address;
}

static inline u8 *store(u64 address, u32 n, u32 line, bool strong) {
  if (UNLIKELY_(opt.stats)) request(address, n, line, false, true);
  u64 off = address - arena;
  if (UNLIKELY_(off >= arena_size || (address & (n - 1)))) return outside("a write", address, n, line);
  u64 word = off >> 2;
  if (n >= 4) {
    for (u32 i = 0; i < n / 4; i++) {
      u8 m = marks[word + i];
      if (UNLIKELY_((m & 0xf0) != 0xf0)) return outside("a write", address, n, line);
      marks[word + i] = 0xff;
      if (opt.racecheck | opt.streamcheck) race_write(word + i, address, n, line, strong);
    }
  } else {
    u8 need = ((1 << n) - 1) << (off & 3), m = marks[word];
    if (UNLIKELY_(((m >> 4) & need) != need)) return outside("a write", address, n, line);
    marks[word] = m | need;
    if (opt.streamcheck) order_write(word, address, n, line);
  }
  return (u8 *)address;
}

extern "C" {

const u8 *vg_ld_global(u64 address, u32 n, u32 line) { return load(address, n, line, false); }
u8 *vg_st_global(u64 address, u32 n, u32 line) { return store(address, n, line, false); }
const u8 *vg_ld_strong(u64 address, u32 n, u32 line) {
  return in_arena(address) ? load(address, n, line, true) : vg_ld_generic(address, n, line);
}
u8 *vg_st_strong(u64 address, u32 n, u32 line) {
  return in_arena(address) ? store(address, n, line, true) : vg_st_generic(address, n, line);
}

u8 *vg_at_global(u64 address, u32 n, u32 line) {
  u64 off = address - arena;
  if (UNLIKELY_(off >= arena_size || (address & (n - 1)))) return outside("an atomic access", address, n, line);
  u64 word = off >> 2;
  for (u32 i = 0; i < (n + 3) / 4; i++) {
    u8 m = marks[word + i], need = n >= 4 ? 15 : ((1 << n) - 1) << (off & 3);
    if (UNLIKELY_(((m >> 4) & need) != need)) return outside("an atomic access", address, n, line);
    if (UNLIKELY_((m & need) != need) && opt.initcheck)
      find("uninitialized read", line, access_text("an atomic access", address, n) + near(address));
    marks[word + i] = m | need;
    if ((opt.racecheck | opt.streamcheck) && n >= 4) race_write(word + i, address, n, line, true);
  }
  return (u8 *)address;
}

}  // extern "C"

bool touch(uint64_t address, uint64_t size, bool writes) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  const order::Op *now = order::current();
  if (!now || !size || !in_arena(address) || !in_arena(address + size - 1)) return true;
  restart_serials();
  u32 mine = ++serial;
  bool fine = true;
  auto bad = [&](u32 by, const char *verb, uint64_t word) {
    const order::Op *op = order::unordered(by);
    if (!op) return;
    string what = now->what + (writes ? " writes " : " reads ") + near(arena + word * 4) + order::unordered_text(*op, verb);
    if (find_on_host("no order between streams", now->what.substr(0, 24) + op->what.substr(0, 60) + verb, what)) fine = false;
  };
  for (uint64_t word = (address - arena) >> 2, stop = (address + size - 1 - arena) >> 2; word <= stop; word++) {
    Tag &g = tags[word];
    u32 w = g.w & ~ATOMICALLY, r = g.r & ~ATOMICALLY;
    if (UNLIKELY_(order::maybe(w))) bad(w, "writes", word);
    if (writes) {
      if (UNLIKELY_(order::maybe(r))) bad(r, "reads", word);
      if (UNLIKELY_(any_others) && order::maybe(others[word])) bad(others[word], "reads", word);
      g.w = mine, g.wt = g.we = 0;
    } else {
      if (UNLIKELY_(order::maybe(r))) keep_reader(word, r);
      g.r = mine, g.rt = g.re = 0;
    }
  }
  return fine;
}

}  // namespace vg
