// What is put on a stream.
#include "work.hpp"

#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "capture.hpp"
#include "flights.hpp"

namespace driver {

int running = -1;
uint32_t chain = 0;

// ---- who waits for whom

int timeline(CUstream s) {
  if (s->timeline < 0)
    s->timeline =
        order::open(s == &legacy       ? "the default stream"
                    : s == &per_thread ? "the thread's default stream"
                                       : "stream " + std::to_string(s->id) + (s->flags & CU_STREAM_NON_BLOCKING ? " (non-blocking)" : ""));
  return s->timeline;
}

// What work on a stream comes after: the legacy stream waits for the blocking ones, and they for it.
order::Clock &before(CUstream s) {
  order::Clock &k = order::known(timeline(s));
  order::join(k, order::host());
  auto blocking = [](CUstream x) { return !(x->flags & CU_STREAM_NON_BLOCKING) && x->timeline >= 0; };
  if (s == &legacy) {
    for (CUstream x : streams)
      if (blocking(x)) order::join(k, order::known(x->timeline));
    if (per_thread.timeline >= 0) order::join(k, order::known(per_thread.timeline));
  } else if (blocking(s) && legacy.timeline >= 0) order::join(k, order::known(legacy.timeline));
  return k;
}

CUresult host_waits(const order::Clock &k) {
  order::join(order::host(), k);
  int e = settle(order::host(), true);
  order::host_waited();
  return failed(e);
}
CUresult host_waits_for_all() {
  order::Clock k;
  order::everything(k);
  return host_waits(k);
}

// ---- a stream takes it

CUgraphNode add_node(CUgraph g, Node &&n) {
  auto p = std::make_unique<Node>(std::move(n));
  p->owner = g;
  p->index = g->nodes.size();
  size_t at = 0;
  p->pointers.clear();
  if (p->kernel)
    for (auto &q : p->kernel->function->params) p->pointers.push_back(p->parameters.data() + q.offset), at++;
  g->nodes.push_back(std::move(p));
  return (CUgraphNode)g->nodes.back().get();
}

CUresult enqueue(CUstream stream, Node &&n, const char *name) {
  CUstream s = resolve(stream);
  if (!valid(s)) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = implicit(s, name)) return r;
  if (!s->capture) {
    before(s);
    running = timeline(s);
    chain = s->chain;
    int result = do_node(n);
    s->chain = chain;
    return R(result);
  }
  if (s->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  n.after = s->after;
  if (n.early && n.after.size() > 1) {
    vg::log("a launch that begins early, after several operations: what a device does then is not known");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  add_node(s->capture->graph, std::move(n));
  s->after = {s->capture->graph->nodes.size() - 1};
  return CUDA_SUCCESS;
}

// ---- it is done

bool on_device(uint64_t a, uint64_t n) {
  const vg::Allocation *x = vg::find_allocation(a);
  return x && a + n <= x->base + x->size;
}

static int do_copy(uint64_t to, uint64_t from, uint64_t n, bool later = false) {
  if (!n) return 0;
  for (uint64_t a : {to, from})
    if (vg::in_arena(a) && !on_device(a, n)) {
      fprintf(stderr, "vgpu: a copy of %llu bytes reaches out of an allocation: from %s to %s\n", (unsigned long long)n,
              vg::near(from).c_str(), vg::near(to).c_str());
      return CUDA_ERROR_INVALID_VALUE;
    }
  if (!vg::touch(from, n, false) | !vg::touch(to, n, true)) return failed(CUDA_ERROR_LAUNCH_FAILED);
  if (int e = reads_from_host(from, n)) return failed(e);
  if (int e = writes_to_host(to, n)) return failed(e);
  if (later && !depart(to, from, n)) return 0;
  memmove((void *)to, (void *)from, n);
  vg::copy_marks(to, from, n);
  return 0;
}

static int do_set(uint64_t to, uint32_t value, uint32_t width, uint64_t n) {  // n elements
  if (!n) return 0;
  if (!on_device(to, n * width)) {
    fprintf(stderr, "vgpu: memset of %llu bytes reaches out of an allocation: %s\n", (unsigned long long)(n * width), vg::near(to).c_str());
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (to % width) return CUDA_ERROR_INVALID_VALUE;
  if (!vg::touch(to, n * width, true)) return failed(CUDA_ERROR_LAUNCH_FAILED);
  if (width == 1) memset((void *)to, value, n);
  else if (width == 2) std::fill_n((uint16_t *)to, n, (uint16_t)value);
  else std::fill_n((uint32_t *)to, n, value);
  vg::mark_written(to, n * width);
  return 0;
}

bool host_memory(uint64_t a) {
  const vg::Allocation *x = vg::find_allocation(a);
  return !x || x->kind == vg::HOST;
}
bool pinned(uint64_t a) {
  const vg::Allocation *x = vg::find_allocation(a);
  return x && x->kind == vg::HOST;
}

Operation::Operation(const string &what) {
  if (running < 0) running = timeline(&legacy);
  settle(order::known(running), false);
  order::begin(running, what);
}
Operation::~Operation() { order::end(); }

int do_node(Node &n) {
  uint32_t before = chain;
  chain = 0;
  switch (n.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      if (!kernels.count(n.kernel)) {
        fprintf(stderr, "vgpu: a graph launches a kernel whose module is unloaded\n");
        return failed(CUDA_ERROR_LAUNCH_FAILED);
      }
      {
        Operation o(n.kernel->name);
        uint32_t own = vg::next_serial();
        n.where.unfinished = n.early && before < own ? before : 0;
        chain = n.where.unfinished ? before : own;
        return failed(vg::launch(*n.kernel, n.where, n.parameters.data()));
      }
    case CU_GRAPH_NODE_TYPE_MEMCPY: {
      bool h = host_memory(n.from), d = host_memory(n.to);
      Operation o("a copy of " + std::to_string(n.size * n.rows) + " bytes" +
                  (h && d ? " on the host"
                   : h    ? " from the host"
                   : d    ? " to the host"
                          : ""));
      for (uint64_t r = 0; r < n.rows; r++)
        if (int e = do_copy(n.to + r * n.to_pitch, n.from + r * n.from_pitch, n.size, n.later)) return e;
      return 0;
    }
    case CU_GRAPH_NODE_TYPE_MEMSET: {
      Operation o("a fill of " + std::to_string(n.size * n.width * n.rows) + " bytes");
      for (uint64_t r = 0; r < n.rows; r++)
        if (int e = do_set(n.to + r * n.to_pitch, n.value, n.width, n.size)) return e;
      return 0;
    }
    case CU_GRAPH_NODE_TYPE_HOST: n.host(n.data); return 0;
    case CU_GRAPH_NODE_TYPE_GRAPH:
      for (auto &c : n.child->nodes)
        if (int e = do_node(*c)) return e;
      return 0;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      n.event->recorded = true;
      n.event->clock = order::known(running);
      clock_gettime(CLOCK_MONOTONIC, &n.event->when);
      return 0;
    default: return 0;
  }
}

}  // namespace driver
