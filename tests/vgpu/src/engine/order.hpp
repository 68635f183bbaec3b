// What happens before what on the device: streams, the host, events and graphs as timelines with vector clocks. Everything is done at
// once here; whether a real device had to do it in this order is what these clocks say.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace order {

typedef std::vector<uint32_t> Clock;  // of each timeline: how many of its operations are known to be over
void join(Clock &to, const Clock &from);

int open(const std::string &label);  // a new timeline: a stream, or a branch of a graph
void close(int timeline);
const std::string &label(int timeline);
Clock &known(int timeline);    // what an operation put on it now would come after
Clock &host();                 // what the host has waited for
void host_waited();            // forgets what can no longer race, after host() grew
void everything(Clock &into);  // all operations so far

struct Op {
  uint32_t first, last;  // serial numbers of its blocks, which the shadow of the memory holds
  int timeline;
  uint32_t time;
  std::string what;
};
void begin(int timeline, const std::string &what);
void end();
const Op *current();
void restart();  // serial numbers begin anew

// For the engine: whether a serial number may belong to an operation that nothing orders before the current one.
extern uint32_t low, span __attribute__((visibility("hidden")));
inline bool maybe(uint32_t serial) { return serial - low < span; }
const Op *unordered(uint32_t serial);
std::string unordered_text(const Op &op, const char *verb);

}  // namespace order
