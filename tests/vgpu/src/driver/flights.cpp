// Copies that the host does not wait for. They are done at once, or late (VGPU_ASYNC=1); either way the host may not change what they read.
#include "flights.hpp"

#include <string.h>

#include <algorithm>

namespace driver {

namespace {

struct Flight {
  uint64_t to, from, size, sum;
  int timeline;
  uint32_t time;
  string what;
  bool done, from_host;
};
std::vector<Flight> flights;

uint64_t sum_of(uint64_t address, uint64_t n) {
  uint64_t h = n, w;
  for (; n >= 8; n -= 8, address += 8) memcpy(&w, (void *)address, 8), h = (h ^ w) * 0x9e3779b97f4a7c15ull, h ^= h >> 29;
  for (; n; n--, address++) h = (h ^ *(uint8_t *)address) * 1099511628211ull;
  return h;
}

int overwritten(Flight &f) {
  if (!f.from_host || !vg::find_allocation(f.from) || f.sum == sum_of(f.from, f.size)) return 0;
  f.from_host = false;
  string what = f.what + " on " + order::label(f.timeline) + " was still to be waited for when the host changed its source, " +
                vg::near(f.from) + " (to " + vg::near(f.to) + ")";
  return vg::find_on_host("the host overwrites what a copy reads", f.what, what) ? CUDA_ERROR_LAUNCH_FAILED : 0;
}

void land(Flight &f) {
  if (f.done) return;
  f.done = true;
  memmove((void *)f.to, (void *)f.from, f.size);
  vg::copy_marks(f.to, f.from, f.size);
}

}  // namespace

int reads_from_host(uint64_t from, uint64_t n) {
  for (auto &f : flights)
    if (f.from_host && f.from < from + n && from < f.from + f.size)
      if (int e = overwritten(f)) return e;
  return 0;
}

int writes_to_host(uint64_t to, uint64_t n) {
  const order::Op *op = order::current();
  if (!op) return 0;
  const order::Clock &known = order::known(op->timeline);
  for (auto &f : flights) {
    if (!f.from_host || f.from >= to + n || to >= f.from + f.size) continue;
    if ((size_t)f.timeline >= known.size() || known[f.timeline] < f.time) continue;  // touch() looks after the order
    if (int e = overwritten(f)) return e;
    land(f);
    f.from_host = false;
  }
  return 0;
}

bool depart(uint64_t to, uint64_t from, uint64_t n) {
  const order::Op *op = order::current();
  if (!op) return true;
  const vg::Allocation *a = vg::find_allocation(from);
  bool from_host = a && a->kind == vg::HOST, late = vg::options().async;
  if (late || from_host)
    flights.push_back({to, from, n, from_host ? sum_of(from, n) : 0, op->timeline, op->time, op->what, !late, from_host});
  return !late;
}

// Copies that are over for whoever knows this much.
int settle(const order::Clock &known, bool host) {
  int e = 0;
  if (flights.empty()) return 0;
  auto over = [&](Flight &f) {
    if ((size_t)f.timeline >= known.size() || known[f.timeline] < f.time) return false;
    if (host && !e) e = overwritten(f);
    land(f);
    return host || !f.from_host;
  };
  flights.erase(std::remove_if(flights.begin(), flights.end(), over), flights.end());
  return e;
}

}  // namespace driver
