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
