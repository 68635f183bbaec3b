// What is put on a stream: done at once, or made a node of the graph that the stream is captured into; and who waits for whom.
#pragma once
#include "state.hpp"

namespace driver {

CUgraphNode add_node(CUgraph g, Node &&n);
CUresult enqueue(CUstream stream, Node &&n, const char *name);

int timeline(CUstream s);
order::Clock &before(CUstream s);  // what work on a stream comes after
CUresult host_waits(const order::Clock &k);
CUresult host_waits_for_all();

// The first serial number that may be unfinished when a launch begins early. After an operation: what this is for a launch after it; 0 if
// it is no kernel, and a launch then never begins early.
extern uint32_t chain;
extern int running;  // the timeline of what is done now
struct Operation {   // on that timeline, as long as this lives
  explicit Operation(const string &what);
  ~Operation();
};
int do_node(Node &n);

bool on_device(uint64_t a, uint64_t n);  // all of it in one allocation
bool host_memory(uint64_t a);
bool pinned(uint64_t a);

}  // namespace driver
