#include "user_objects.hpp"

#include <algorithm>

namespace driver {

Farewell::~Farewell() {
  for (auto &c : calls) c.first(c.second);
}

void release(CUuserObject o, unsigned count, Farewell &farewell) {
  o->references -= std::min(o->references, count);
  if (o->references) return;
  farewell.calls.emplace_back(o->destroy, o->what);
  delete o;
}

}  // namespace driver

extern "C" {

CUresult cuUserObjectCreate(CUuserObject *out, void *what, CUhostFn destroy, unsigned references, unsigned flags) {
  ENTER;
  NEED(out && destroy && references && flags == CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
  *out = new CUuserObject_st{what, destroy, references};
  return CUDA_SUCCESS;
}
CUresult cuUserObjectRetain(CUuserObject o, unsigned count) {
  ENTER;
  NEED(o && count);
  o->references += count;
  return CUDA_SUCCESS;
}
CUresult cuUserObjectRelease(CUuserObject o, unsigned count) {
  Farewell farewell;
  ENTER_QUIET;
  NEED(o && count);
  release(o, count, farewell);
  return CUDA_SUCCESS;
}
CUresult cuGraphRetainUserObject(CUgraph g, CUuserObject o, unsigned count, unsigned flags) {
  ENTER;
  NEED(g && o && count && flags <= CU_GRAPH_USER_OBJECT_MOVE);
  if (!(flags & CU_GRAPH_USER_OBJECT_MOVE)) o->references += count;
  g->objects[o] += count;
  return CUDA_SUCCESS;
}
CUresult cuGraphReleaseUserObject(CUgraph g, CUuserObject o, unsigned count) {
  Farewell farewell;
  ENTER_QUIET;
  NEED(g && o);
  auto held = g->objects.find(o);
  if (!count || held == g->objects.end() || held->second < count) return CUDA_ERROR_INVALID_VALUE;
  if (!(held->second -= count)) g->objects.erase(held);
  release(o, count, farewell);
  return CUDA_SUCCESS;
}

}  // extern "C"
