// Accesses to shared and local memory, and to addresses that may be of either or of global memory.
#include <stdio.h>

#include "block.hpp"
#include "clocks.hpp"
#include "stats.hpp"

namespace vg {

static u8 *outside_shared(const char *what, u64 address, u32 n, u32 line) {
  char b[160];
  bool misaligned = n && (address & (n - 1));
  snprintf(b, sizeof b, "%s of %u bytes at %llu of shared memory, of which the block has %u bytes", what, n, (unsigned long long)address,
           block.shared_size);
  find(misaligned ? "misaligned access" : "access out of bounds", line, b);
  if (misaligned || opt.strict || address + n > SHARED_MOST) die(misaligned ? 716 : 700);
  return shared_memory + address;
}

static inline void shared_read(Word &s, u8 mask, u64 address, u32 n, u32 line) {
  if (opt.initcheck && UNLIKELY_(s.block != serial || (s.written & mask) != mask)) {
    find("uninitialized read", line, shared_text("a read", address, n));
    if (s.block != serial) s.block = serial, s.written = 0;
    s.written |= mask;
  }
  if (!opt.racecheck) return;
  if (UNLIKELY_(any_in_flight) && in_flight[&s - shared_words])
    find("race in shared memory", line, shared_text("a read", address, n) + ", that an asynchronous copy is still writing");
  if (clocked) return thread_reads(&s - shared_words, mask, address, n, line);
  Fiber *f = current;
  if (s.wepoch == epoch && s.wt != f->index && (s.wmask & mask)) {
    bool same = s.wt / 32 == f->warp;
    if (!same)
      find("race in shared memory", line,
           shared_text("a read", address, n) + ", that " + thread_name(s.wt) + " writes since the last barrier");
    else if (s.wwarp == warp_epoch[f->warp])
      find("race in shared memory, within a warp", line,
           shared_text("a read", address, n) + ", that " + thread_name(s.wt) + " writes since the last barrier", false);
  }
  if (s.repoch == epoch && (s.rmask & mask)) {
    if (s.rt != f->index) {
      bool same = s.rt != SEVERAL && (s.rt & SEVERAL_OF_WARP ? (u32)(s.rt & 0x7fff) == f->warp : (u32)s.rt / 32 == f->warp);
      s.rt = same ? SEVERAL_OF_WARP | f->warp : SEVERAL;
    }
    s.rmask |= mask;
    s.rwarp = warp_epoch[f->warp];
  } else s.repoch = epoch, s.rt = f->index, s.rmask = mask, s.rwarp = warp_epoch[f->warp];
}

static inline void shared_write(Word &s, u8 mask, u64 address, u32 n, u32 line, bool atomic) {
  if (s.block != serial) s.block = serial, s.written = 0;
  s.written |= mask;
  if (!opt.racecheck) return;
  if (UNLIKELY_(any_in_flight) && in_flight[&s - shared_words])
    find("race in shared memory", line, shared_text("a write", address, n) + ", that an asynchronous copy is still writing");
  if (clocked) return thread_writes(&s - shared_words, mask, address, n, line, atomic);
  Fiber *f = current;
  if (s.wepoch == epoch && s.wt != f->index && (s.wmask & mask) && !atomic) {
    bool same = s.wt / 32 == f->warp;
    if (!same)
      find("race in shared memory", line,
           shared_text("a write", address, n) + ", that " + thread_name(s.wt) + " writes since the last barrier");
    else if (s.wwarp == warp_epoch[f->warp])
      find("race in shared memory, within a warp", line,
           shared_text("a write", address, n) + ", that " + thread_name(s.wt) + " writes since the last barrier", false);
  }
  if (s.repoch == epoch && s.rt != f->index && (s.rmask & mask)) {
    bool same = s.rt != SEVERAL && (s.rt & SEVERAL_OF_WARP ? (u32)(s.rt & 0x7fff) == f->warp : (u32)s.rt / 32 == f->warp);
    if (!same)
      find("race in shared memory", line,
           shared_text("a write", address, n) + ", that " + thread_name(s.rt) + " reads since the last barrier");
    else if (s.rwarp == warp_epoch[f->warp])
      find("race in shared memory, within a warp", line,
           shared_text("a write", address, n) + ", that " + thread_name(s.rt) + " reads since the last barrier", false);
  }
  if (atomic) return;  // atomics do not race with one another
  if (s.wepoch == epoch && s.wt == f->index && s.wwarp == warp_epoch[f->warp]) s.wmask |= mask;
  else s.wmask = mask;
  s.wepoch = epoch, s.wt = f->index, s.wwarp = warp_epoch[f->warp];
}

void note_shared_write(Word &s, u8 mask, u64 address, u32 n, u32 line) { shared_write(s, mask, address, n, line, false); }

extern "C" {

const u8 *vg_ld_shared(u64 address, u32 n, u32 line) {
  address &= 0xffffffff;
  if (UNLIKELY_(opt.stats)) request(address, n, line, true, false);
  if (UNLIKELY_(address + n > block.shared_size || (address & (n - 1)))) return outside_shared("a read", address, n, line);
  Word *s = shared_words + (address >> 2);
  if (n >= 4)
    for (u32 i = 0; i < n / 4; i++) shared_read(s[i], 15, address, n, line);
  else shared_read(*s, ((1 << n) - 1) << (address & 3), address, n, line);
  return shared_memory + address;
}

u8 *vg_st_shared(u64 address, u32 n, u32 line) {
  address &= 0xffffffff;
  if (UNLIKELY_(opt.stats)) request(address, n, line, true, true);
  if (UNLIKELY_(address + n > block.shared_size || (address & (n - 1)))) return outside_shared("a write", address, n, line);
  Word *s = shared_words + (address >> 2);
  if (n >= 4)
    for (u32 i = 0; i < n / 4; i++) shared_write(s[i], 15, address, n, line, false);
  else shared_write(*s, ((1 << n) - 1) << (address & 3), address, n, line, false);
  return shared_memory + address;
}

u8 *vg_at_shared(u64 address, u32 n, u32 line) {
  address &= 0xffffffff;
  if (UNLIKELY_(address + n > block.shared_size || (address & (n - 1)))) return outside_shared("an atomic access", address, n, line);
  Word *s = shared_words + (address >> 2);
  for (u32 i = 0; i < (n + 3) / 4; i++) shared_write(s[i], n >= 4 ? 15 : ((1 << n) - 1) << (address & 3), address, n, line, true);
  return shared_memory + address;
}

static u8 *local_access(u64 address, u32 n, u32 line, const char *what) {
  if (UNLIKELY_(address < current->low || address + n > current->high)) {
    find("access out of bounds", line, access_text(what, address, n) + "outside local memory");
    die(700);
  }
  if (UNLIKELY_(address & (n - 1))) {
    find("misaligned access", line, access_text(what, address, n) + "in local memory");
    die(716);
  }
  return (u8 *)address;
}
const u8 *vg_ld_local(u64 address, u32 n, u32 line) { return local_access(address, n, line, "a read"); }
u8 *vg_st_local(u64 address, u32 n, u32 line) { return local_access(address, n, line, "a write"); }

u64 vg_shared_base(void) { return SHARED_BASE; }
static bool is_shared(u64 a) { return a - SHARED_BASE < (1ull << 32); }
static bool is_local(u64 a) { return a >= current->low && a < current->high; }
static bool is_param(u64 a) { return a - (u64)parameters_now < kernel->function->param_bytes; }

int vg_is_space(u64 a, int space) {
  switch (space) {
    case 's': return is_shared(a);
    case 'l': return is_local(a);
    case 'g': return !is_shared(a) && !is_local(a);
    default: return 0;
  }
}

const u8 *vg_ld_generic(u64 address, u32 n, u32 line) {
  if (in_arena(address)) return vg_ld_global(address, n, line);
  if (is_shared(address)) return vg_ld_shared(address - SHARED_BASE, n, line);
  if (is_local(address)) return vg_ld_local(address, n, line);
  if (is_param(address)) return (const u8 *)address;
  return outside("a read", address, n, line);
}
u8 *vg_st_generic(u64 address, u32 n, u32 line) {
  if (in_arena(address)) return vg_st_global(address, n, line);
  if (is_shared(address)) return vg_st_shared(address - SHARED_BASE, n, line);
  if (is_local(address)) return vg_st_local(address, n, line);
  return outside("a write", address, n, line);
}
u8 *vg_at_generic(u64 address, u32 n, u32 line) {
  if (in_arena(address)) return vg_at_global(address, n, line);
  if (is_shared(address)) return vg_at_shared(address - SHARED_BASE, n, line);
  if (is_local(address)) return vg_st_local(address, n, line);
  return outside("an atomic access", address, n, line);
}

}  // extern "C"

}  // namespace vg
