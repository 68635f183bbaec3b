#include "order.hpp"

#include <algorithm>
#include <deque>

#include "launch.hpp"
#include "options.hpp"

namespace order {
using std::string;

struct Timeline {
  string label;
  Clock known;
  std::deque<uint64_t> open;  // operations that the host has not waited for, by number
};

uint32_t low = 0, span = 0;

static std::deque<Op> ops;  // in the order they were given out: by serial number too
static uint64_t first_op = 0;
static std::deque<Timeline> timelines;
static std::vector<int> spare;
static Clock host_clock;
static bool running = false;
static Op now;
// The last answer of `unordered`
static uint32_t seen_first = 1, seen_last = 0;
static const Op *seen;

static uint32_t at(const Clock &c, int i) { return (size_t)i < c.size() ? c[i] : 0; }
static bool enabled() { return vg::options().streamcheck; }

void join(Clock &to, const Clock &from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (size_t i = 0; i < from.size(); i++) to[i] = std::max(to[i], from[i]);
}

int open(const string &label) {
  for (size_t i = 0; i < spare.size(); i++) {
    int t = spare[i];
    if (at(host_clock, t) < at(timelines[t].known, t)) continue;  // the host knows all of the old one's: they stay in order
    spare.erase(spare.begin() + i);
    timelines[t].label = label;
    return t;
  }
  timelines.emplace_back();
  timelines.back().label = label;
  return (int)timelines.size() - 1;
}
void close(int t) {
  if (t >= 0) spare.push_back(t);
}
const string &label(int t) { return timelines[t].label; }
Clock &known(int t) { return timelines[t].known; }
Clock &host() { return host_clock; }

void host_waited() {
  for (size_t t = 0; t < timelines.size(); t++) {
    auto &o = timelines[t].open;
    while (!o.empty() && (o.front() < first_op || ops[o.front() - first_op].time <= at(host_clock, (int)t))) o.pop_front();
  }
  while (!ops.empty() && ops.front().time <= at(host_clock, ops.front().timeline)) ops.pop_front(), first_op++;
  seen_first = 1, seen_last = 0;
}

void everything(Clock &into) {
  for (auto &t : timelines) join(into, t.known);
}

void begin(int t, const string &what) {
  span = 0;
  if (!enabled()) return;
  Timeline &own = timelines[t];
  if (own.known.size() <= (size_t)t) own.known.resize(t + 1);
  now = {vg::next_serial(), 0, t, ++own.known[t], what};
  running = true;
  uint32_t first = 0xffffffffu, last = 0;
  for (size_t u = 0; u < timelines.size(); u++) {
    auto &o = timelines[u].open;
    while (!o.empty() && o.front() < first_op) o.pop_front();
    if (o.empty() || (int)u == t) continue;
    uint32_t after = at(own.known, (int)u);
    auto i = std::partition_point(o.begin(), o.end(), [&](uint64_t id) { return ops[id - first_op].time <= after; });
    if (i != o.end()) first = std::min(first, ops[*i - first_op].first), last = std::max(last, ops[o.back() - first_op].last);
  }
  if (last) low = first, span = last - first + 1;
  seen_first = 1, seen_last = 0;
}

void end() {
  if (!running) return;
  running = false;
  now.last = vg::next_serial() - 1;
  span = 0;
  if (now.last < now.first) return;  // it touched nothing
  ops.push_back(now);
  timelines[now.timeline].open.push_back(first_op + ops.size() - 1);
}

const Op *current() { return running ? &now : nullptr; }

void restart() {
  ops.clear();
  for (auto &t : timelines) t.open.clear();
  if (running) now.first = vg::next_serial();
  span = 0;
}

const Op *unordered(uint32_t serial) {
  if (!running) return nullptr;
  if (serial >= seen_first && serial <= seen_last) return seen;
  auto i = std::partition_point(ops.begin(), ops.end(), [&](const Op &o) { return o.last < serial; });
  if (i == ops.end() || i->first > serial) return nullptr;
  seen_first = i->first, seen_last = i->last;
  seen = i->time > at(timelines[now.timeline].known, i->timeline) ? &*i : nullptr;
  return seen;
}

string unordered_text(const Op &op, const char *verb) {
  return ", on " + label(now.timeline) + ", that " + op.what + " on " + label(op.timeline) + " " + verb + ": nothing orders the two";
}

}  // namespace order
