// Bulk copies, plain and of tensors. Into shared memory they arrive when somebody asks their mbarrier.
#include <string.h>

#include "engine.hpp"
#include "mbarriers.hpp"

namespace vg {

static TensorMap tensor_map(u64 at, int rank, u32 line) {
  TensorMap m;
  if (at % 64) {
    find("misaligned access", line, "a tensor map lies at a multiple of 64");
    die(716);
  }
  u8 raw[128];
  for (u32 i = 0; i < 128; i += 16) memcpy(raw + i, vg_ld_generic(at + i, 16, line), 16);
  memcpy(&m, raw, sizeof m);
  if (memcmp(m.magic, "VGPUTMAP", 8) || m.rank != rank) {
    find("no tensor map", line, "of " + std::to_string(rank) + " dimensions there");
    die(719);
  }
  return m;
}

// Calls f(offset in the box, address or 0 where that is outside) for each element.
template <class F> static void for_box(const TensorMap &m, const s32 *at, F f) {
  u32 i[5] = {0, 0, 0, 0, 0}, n = 1;
  for (int d = 0; d < m.rank; d++) n *= m.box[d];
  for (u32 e = 0; e < n; e++) {
    bool inside = true;
    u64 a = m.base;
    for (int d = 0; d < m.rank; d++) {
      s64 x = (s64)at[d] + (s64)i[d] * m.steps[d];
      inside &= x >= 0 && x < (s64)m.dims[d];
      a += x * (d ? m.strides[d - 1] : m.size);
    }
    f(e * m.size, inside ? a : 0);
    for (int d = 0; d < m.rank && ++i[d] == m.box[d]; d++) i[d] = 0;
  }
}
static u32 box_bytes(const TensorMap &m) {
  u32 n = m.size;
  for (int d = 0; d < m.rank; d++) n *= m.box[d];
  return n;
}
static u32 swizzled_at(const TensorMap &m, u32 a) { return m.swizzle ? a ^ ((a >> 7 & (m.swizzle - 1)) << 4) : a; }

static void fly_in(u32 to, std::vector<u8> &&bytes, Mbarrier &m, u32 line) {
  u32 t = current->index, n = (u32)bytes.size();
  Event e{{}, t, ++m.bulks, line, to, true, std::move(bytes), {}, {}};
  if (opt.racecheck)
    for (u32 w = to >> 2; w < (to + n) >> 2; w++) {
      if (UNLIKELY_(in_flight[w]))
        find("race in shared memory", line, shared_text("a cp.async.bulk", to, n) + ", that another asynchronous copy is still writing");
      clocked_write(w, 15, {m.agent, e.time, clock_of(t), proxied_of(t), "a cp.async.bulk", to, n, line});
    }
  fly(to, n, 1);
  m.events.push_back(std::move(e));
  progress++;
}

extern "C" {

void vg_bulk_in(u64 to64, u64 from, u32 n, u64 mbarrier, u32 line) {
  u32 to = shared_offset(to64);
  shared_range("a cp.async.bulk", to, n, 16, line);
  if (n % 16 || from % 16) {
    find("misaligned access", line, access_text("a cp.async.bulk", from, n) + near(from) + ": addresses and size must be multiples of 16");
    die(716);
  }
  Mbarrier &m = mbarrier_at(mbarrier, line);
  std::vector<u8> bytes(n);
  for (u32 i = 0; i < n; i += 16) memcpy(&bytes[i], vg_ld_global(from + i, 16, line), 16);
  fly_in(to, std::move(bytes), m, line);
}

void vg_tensor_in(u64 to64, u64 map, int rank, const s32 *at, u64 mbarrier, u32 line) {
  TensorMap m = tensor_map(map, rank, line);
  u32 to = shared_offset(to64), n = box_bytes(m);
  shared_range("a bulk tensor copy", to, n, 128, line);
  std::vector<u8> bytes(n);
  for_box(m, at, [&](u32 o, u64 a) {
    u8 *p = &bytes[swizzled_at(m, to + o) - to];
    if (a) memcpy(p, vg_ld_global(a, m.size, line), m.size);
    else memset(p, m.fill ? 0xff : 0, m.size);
  });
  fly_in(to, std::move(bytes), mbarrier_at(mbarrier, line), line);
}
void vg_tensor_out(u64 map, int rank, const s32 *at, u64 from64, u32 line) {
  TensorMap m = tensor_map(map, rank, line);
  u32 from = shared_offset(from64), n = box_bytes(m), t = current->index;
  shared_range("a bulk tensor copy", from, n, 128, line);
  if (opt.racecheck && clocked)
    for (u32 w = from >> 2; w < (from + n) >> 2; w++)
      clocked_read(w, 15, {t, clock_of(t)[t], clock_of(t), proxied_of(t), "a bulk tensor copy", from, n, line});
  for_box(m, at, [&](u32 o, u64 a) {
    if (a) memcpy(vg_st_global(a, m.size, line), shared_memory + swizzled_at(m, from + o), m.size);
  });
}

void vg_bulk_out(u64 to, u64 from64, u32 n, u32 line) {
  u32 from = shared_offset(from64), t = current->index;
  shared_range("a cp.async.bulk", from, n, 16, line);
  if (n % 16 || to % 16) {
    find("misaligned access", line, access_text("a cp.async.bulk", to, n) + near(to) + ": addresses and size must be multiples of 16");
    die(716);
  }
  if (opt.racecheck && clocked)
    for (u32 w = from >> 2; w < (from + n) >> 2; w++)
      clocked_read(w, 15, {t, clock_of(t)[t], clock_of(t), proxied_of(t), "a cp.async.bulk", from, n, line});
  for (u32 i = 0; i < n; i += 16) memcpy(vg_st_global(to + i, 16, line), shared_memory + from + i, 16);
}
void vg_proxy_fence(u32) {
  if (clocked) most(proxied_of(current->index), clock_of(current->index), AGENTS);
}

}  // extern "C"

}  // namespace vg
