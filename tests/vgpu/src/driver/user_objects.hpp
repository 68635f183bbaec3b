// Objects of the program's that graphs keep alive.
#pragma once
#include <utility>

#include "state.hpp"

struct CUuserObject_st {
  void *what;
  CUhostFn destroy;
  unsigned references;
};

namespace driver {

// Destroys, when it ends, what nobody refers to any more. It is declared before ENTER, so that the lock is free by then: the program's
// function may wait for another thread (Python's lock), and that one for ours.
struct Farewell {
  std::vector<std::pair<CUhostFn, void *>> calls;
  ~Farewell();
};
void release(CUuserObject o, unsigned count, Farewell &farewell);

}  // namespace driver
