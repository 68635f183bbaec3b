#include "mbarriers.hpp"

#include <algorithm>
#include <map>

namespace vg {

static std::map<u32, Mbarrier> mbarriers;
static u32 mbarriers_made;

void begin_block_mbarriers() {
  if (!mbarriers.empty()) mbarriers.clear();
  mbarriers_made = 0;
}

Mbarrier &mbarrier_at(u64 a, u32 line) {
  u32 at = shared_offset(a);
  auto i = mbarriers.find(at);
  if (i == mbarriers.end()) {
    shared_range("an mbarrier", at, 8, 8, line);
    find("no mbarrier", line, "at " + std::to_string(at) + " of shared memory none has been initialized");
    die(719);
  }
  Mbarrier &m = i->second;
  if (clocked && m.maker != current->index && clock_of(current->index)[m.maker] < m.made)
    find("race in shared memory", line,
         "an mbarrier at " + std::to_string(at) + " of shared memory is used, that thread " + std::to_string(m.maker) +
             " initializes, with nothing that orders the two");
  return m;
}

static void show(u32 at, const Mbarrier &m) {  // what is in the memory itself says little: it is opaque
  u64 v = (u64)m.phase << 32 | (m.pending & 0xffff) << 16 | (m.expected & 0xffff);
  memcpy(shared_memory + at, &v, 8);
}

static void turn(Mbarrier &m) {  // to the next phase, where this one is over
  if (m.pending || m.tx) return;
  m.phase++, m.pending = m.expected;
  if (!m.next.empty()) learn(m.done, m.next.data()), learn(m.done_fences, m.next_fences.data());
  progress++;
}

static void count_down(Mbarrier &m, u32 count, u32 line) {
  if (count > m.pending) {
    find("mbarrier overrun", line, std::to_string(count) + " arrive, and the phase waits for " + std::to_string(m.pending));
    die(719);
  }
  m.pending -= count;
  progress++;
  turn(m);
}

void poll(Mbarrier &m, u32 at) {
  if (m.events.empty()) return;
  std::vector<Event> events;
  events.swap(m.events);
  for (Event &e : events) {
    if (e.bytes.empty()) {
      for (auto &c : e.copies)
        if (!c->landed) land(*c), landed(*c, e.time, e.vc.data());
      learn(m.next, e.vc.data()), learn(m.next_fences, e.fences.data());
      count_down(m, 1, e.line);
    } else {
      u32 n = (u32)e.bytes.size();
      fly(e.to, n, -1);
      memcpy(shared_memory + e.to, e.bytes.data(), n);
      for (u32 w = e.to >> 2; w < (e.to + n) >> 2; w++) {
        Word &s = shared_words[w];
        s.block = serial, s.written = 15;
      }
      if (m.next.empty()) m.next.assign(AGENTS, 0), m.next_fences.assign(AGENTS, 0);
      m.next[m.agent] = std::max(m.next[m.agent], e.time), m.next_fences[m.agent] = m.next[m.agent];
      m.tx -= n;
      progress++;
      turn(m);
    }
  }
  show(at, m);
}

extern "C" {

void vg_mbar_init(u64 a, u32 count, u32 line) {
  u32 at = shared_offset(a), t = current->index;
  shared_range("an mbarrier", at, 8, 8, line);
  if (!count || count > 0xfffff) {
    find("mbarrier", line, "a count of " + std::to_string(count));
    die(719);
  }
  vg_st_shared(at, 8, line);
  Mbarrier m;
  m.expected = m.pending = count;
  m.agent = 1024 + mbarriers_made++ % BULK;
  m.maker = t, m.made = clock_of(t)[t];
  auto old = mbarriers.find(at);
  if (old != mbarriers.end()) m.bulks = old->second.bulks, m.agent = old->second.agent;
  mbarriers[at] = m;
  show(at, mbarriers[at]);
}
void vg_mbar_inval(u64 a, u32 line) {
  mbarrier_at(a, line);
  mbarriers.erase(shared_offset(a));
}
u64 vg_mbar_arrive(u64 a, u32 count, u32 tx, int drop, u32 line) {
  u32 t = current->index;
  Mbarrier &m = mbarrier_at(a, line);
  u64 state = (u64)m.phase << 32 | m.pending;
  m.tx += tx;
  learn(m.next, clock_of(t)), learn(m.next_fences, proxied_of(t));
  released(t);
  if (drop) m.expected -= std::min(m.expected, count);
  count_down(m, count, line);
  show(shared_offset(a), m);
  return state;
}
void vg_mbar_tx(u64 a, u32 tx, int complete, u32 line) {
  Mbarrier &m = mbarrier_at(a, line);
  m.tx += complete ? -(s64)tx : (s64)tx;
  if (complete) turn(m);
  progress++;
}
u32 vg_mbar_wait(u64 a, u64 state, int parity, u32 line) {
  Fiber *f = current;
  Mbarrier &m = mbarrier_at(a, line);
  u32 at = shared_offset(a), t = f->index;
  poll(m, at);
  bool over = parity ? (m.phase & 1) != (state & 1) : m.phase != (u32)(state >> 32);
  if (over) {
    if (!m.done.empty()) most(clock_of(t), m.done.data(), AGENTS), most(proxied_of(t), m.done_fences.data(), AGENTS);
    return 1;
  }
  f->state = POLLING, f->line = line;
  leave();
  return 0;
}

}  // extern "C"

}  // namespace vg
