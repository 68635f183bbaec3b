#include "memory.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <map>

#include "options.hpp"
#include "shadow.hpp"

namespace vg {

using std::string;

static const uint64_t RED = 512, ALIGN = 512;
uint64_t arena, arena_size;
static uint64_t arena_limit;
u8 *marks;
Tag *tags;
u32 *others;
bool any_others;
static std::map<uint64_t, Allocation> live;
static std::map<uint64_t, uint64_t> room;  // free ranges: base, length
static std::deque<std::pair<uint64_t, uint64_t>> quarantine;
static uint64_t quarantined, used, next_id = 1;
std::recursive_mutex lock;

void *reserve(uint64_t size) {
  void *p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    fprintf(stderr, "vgpu: no address space for %llu MB\n", (unsigned long long)(size >> 20));
    abort();
  }
  return p;
}

void prepare_memory() {
  static bool done = false;
  if (done) return;
  done = true;
  arena_limit = options().memory;
  arena_size = arena_limit * 2 + (1ull << 30);
  arena = ((uint64_t)reserve(arena_size + (2 << 20)) + (2 << 20) - 1) & ~((uint64_t)(2 << 20) - 1);
  marks = (u8 *)reserve(arena_size / 4);
  tags = (Tag *)reserve(arena_size / 4 * sizeof(Tag));
  others = (u32 *)reserve(arena_size);
  room[arena + 4096] = arena_size - 8192;
}

void forget_tags() {
  madvise(tags, arena_size / 4 * sizeof(Tag), MADV_DONTNEED);
  madvise(others, arena_size, MADV_DONTNEED);
}

bool in_arena(uint64_t a) { return arena && a - arena < arena_size; }
uint64_t memory_used() { return used; }

static void set_marks(uint64_t base, uint64_t size, u8 whole) {  // of a whole allocation
  uint64_t word = (base - arena) >> 2, n = size >> 2;
  memset(marks + word, whole, n);
  if (size & 3) {
    u8 m = (1 << (size & 3)) - 1;
    marks[word + n] = whole & (m | m << 4);
  }
}

uint64_t allocate(uint64_t size, Kind kind, const string &name) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  prepare_memory();
  if (kind == DEVICE && used + size > arena_limit) return 0;
  uint64_t need = (size + ALIGN - 1) / ALIGN * ALIGN + RED;
  for (auto i = room.begin(); i != room.end(); ++i) {
    uint64_t base = (i->first + RED + ALIGN - 1) / ALIGN * ALIGN, end = i->first + i->second;
    if (base + need > end) continue;
    uint64_t start = i->first;
    room.erase(i);
    if (base + need < end) room[base + need] = end - base - need;
    (void)start;
    if (kind == DEVICE) memset((void *)base, 0xff, size), used += size;
    else memset((void *)base, 0, size);
    set_marks(base, size, kind == DEVICE ? 0xf0 : 0xff);
    live[base] = {base, size, kind, next_id++, name};
    return base;
  }
  return 0;
}

static void give_back(uint64_t base, uint64_t length) {
  auto next = room.lower_bound(base);
  if (next != room.end() && base + length == next->first) length += next->second, next = room.erase(next);
  if (next != room.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == base) {
      before->second += length;
      return;
    }
  }
  room[base] = length;
}

bool release(uint64_t address) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto i = live.find(address);
  if (i == live.end() || !in_arena(address)) return false;
  Allocation a = i->second;
  live.erase(i);
  if (a.kind == DEVICE) used -= a.size;
  set_marks(a.base, a.size, 0);
  uint64_t length = (a.size + ALIGN - 1) / ALIGN * ALIGN + RED;
  if (a.size >= 1 << 20) {  // gives whole pages back to the system
    auto forget = [](uint64_t from, uint64_t to) {
      from = (from + 4095) & ~4095ull, to &= ~4095ull;
      if (from < to) madvise((void *)from, to - from, MADV_DONTNEED);
    };
    uint64_t word = (a.base - arena) >> 2;
    forget(a.base, a.base + a.size);
    forget((uint64_t)(tags + word), (uint64_t)(tags + word + a.size / 4));
  }
  quarantine.emplace_back(a.base, length);
  quarantined += length;
  while (quarantined > 64 << 20 && !quarantine.empty()) {
    auto [base, n] = quarantine.front();
    quarantine.pop_front();
    quarantined -= n;
    give_back(base, n);
  }
  return true;
}

bool register_host(uint64_t address, uint64_t size) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto next = live.lower_bound(address);
  if (next != live.end() && next->first < address + size) return false;
  if (find_allocation(address)) return false;
  live[address] = {address, size, HOST, next_id++, "registered"};
  return true;
}

bool unregister_host(uint64_t address) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  return !in_arena(address) && live.erase(address);
}

const Allocation *find_allocation(uint64_t address) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto i = live.upper_bound(address);
  if (i == live.begin()) return nullptr;
  --i;
  return address < i->first + std::max<uint64_t>(i->second.size, 1) ? &i->second : nullptr;
}

string near(uint64_t address) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  char b[256];
  auto i = live.upper_bound(address);
  const Allocation *before = i == live.begin() ? nullptr : &std::prev(i)->second, *after = i == live.end() ? nullptr : &i->second;
  auto named = [](const Allocation &a) {
    static const char *kinds[] = {"allocation", "host allocation", "managed allocation", "module variable"};
    return string(kinds[a.kind]) + " " + std::to_string(a.id) + (a.name.empty() ? "" : " (" + a.name + ")") + " of " +
           std::to_string(a.size) + " bytes";
  };
  if (before && address < before->base + before->size) {
    snprintf(b, sizeof b, "byte %llu of ", (unsigned long long)(address - before->base));
    return b + named(*before);
  }
  if (before && (!after || address - (before->base + before->size) <= after->base - address)) {
    snprintf(b, sizeof b, "%llu bytes past the end of ", (unsigned long long)(address - before->base - before->size));
    return b + named(*before);
  }
  if (after) {
    snprintf(b, sizeof b, "%llu bytes before ", (unsigned long long)(after->base - address));
    return b + named(*after);
  }
  return "no allocation";
}

static void mark_range(uint64_t address, uint64_t size) {
  uint64_t off = address - arena, end = off + size;
  while (off < end && (off & 3)) marks[off >> 2] |= 1 << (off & 3), off++;
  for (; off + 4 <= end; off += 4) marks[off >> 2] |= 15;
  for (; off < end; off++) marks[off >> 2] |= 1 << (off & 3);
}

void mark_written(uint64_t address, uint64_t size) {
  if (in_arena(address) && in_arena(address + size)) mark_range(address, size);
}

void copy_marks(uint64_t to, uint64_t from, uint64_t size) {
  if (!in_arena(to) || !in_arena(to + size)) return;
  if (!in_arena(from) || ((to | from) & 3)) return mark_range(to, size);
  uint64_t a = (to - arena) >> 2, b = (from - arena) >> 2, n = size >> 2;
  for (uint64_t i = 0; i < n; i++) marks[a + i] = (marks[a + i] & 0xf0) | (marks[b + i] & 15);
  if (size & 3) {
    u8 m = (1 << (size & 3)) - 1;
    marks[a + n] = (marks[a + n] & ~m) | (marks[b + n] & m);
  }
}

}  // namespace vg
