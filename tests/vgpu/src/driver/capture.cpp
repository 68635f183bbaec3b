// Streams under capture.
#include "capture.hpp"

#include <algorithm>

namespace driver {

void invalidate(Capture &c, const char *why) {
  if (!c.invalid) c.why = why;
  c.invalid = true;
  vg::log("a capture is now invalid: %s", why);
}

// A call that may not be made while something is captured, unless the mode allows it.
CUresult unsafe(const char *name) {
  CUresult r = CUDA_SUCCESS;
  for (auto &c : captures) {
    if (c->mode == CU_STREAM_CAPTURE_MODE_RELAXED || thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    bool own = c->thread == thread_id();
    if (own || (c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL)) {
      invalidate(*c, name);
      r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  }
  if (r) vg::log("%s while a stream is captured", name);
  return r;
}

// Work on the legacy stream waits for all blocking streams, those under capture included.
CUresult implicit(CUstream s, const char *name) {
  if (s != &legacy) return CUDA_SUCCESS;
  CUresult r = CUDA_SUCCESS;
  for (auto &c : captures)
    for (CUstream x : c->streams)
      if (!(x->flags & CU_STREAM_NON_BLOCKING) && c->mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
        invalidate(*c, name);
        r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
      }
  if (!r)
    for (auto &c : captures)
      for (CUstream x : c->streams)
        if (!(x->flags & CU_STREAM_NON_BLOCKING)) {
          invalidate(*c, name);
          r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
  return r;
}

CUresult begin_capture(CUstream s, CUgraph into, CUstreamCaptureMode mode) {
  s = resolve(s);
  if (!valid(s)) return CUDA_ERROR_INVALID_HANDLE;
  if (s == &legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (s->capture) return CUDA_ERROR_ILLEGAL_STATE;
  auto c = std::make_shared<Capture>();
  c->graph = into ? into : new CUgraph_st;
  c->mode = mode, c->id = next_id++, c->thread = thread_id(), c->origin = s;
  c->streams.insert(s);
  s->capture = c;
  s->after.clear();
  captures.push_back(c);
  return CUDA_SUCCESS;
}

}  // namespace driver

extern "C" {

CUresult cuStreamBeginCapture_v2(CUstream s, CUstreamCaptureMode mode) {
  ENTER;
  return begin_capture(s, nullptr, mode);
}
CUresult cuStreamBeginCaptureToGraph(CUstream s, CUgraph g, const CUgraphNode *, const CUgraphEdgeData *, size_t,
                                     CUstreamCaptureMode mode) {
  ENTER;
  return begin_capture(s, g, mode);
}
CUresult cuStreamEndCapture(CUstream s, CUgraph *out) {
  ENTER;
  STREAM(s);
  if (!s->capture) return CUDA_ERROR_ILLEGAL_STATE;
  auto c = s->capture;
  if (c->origin != s) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED && c->thread != thread_id()) return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  std::set<size_t> joined = s->after;
  std::vector<size_t> todo(joined.begin(), joined.end());
  while (!todo.empty()) {
    size_t i = todo.back();
    todo.pop_back();
    for (size_t j : c->graph->nodes[i]->after)
      if (joined.insert(j).second) todo.push_back(j);
  }
  bool unjoined = joined.size() != c->graph->nodes.size();
  for (CUstream x : c->streams) x->capture = nullptr, x->after.clear();
  captures.erase(std::find(captures.begin(), captures.end(), c));
  if (c->invalid || unjoined) {
    if (out) *out = nullptr;
    vg::log("the capture fails: %s", c->invalid ? c->why.c_str() : "unjoined work");
    return c->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }
  vg::log("captured %zu nodes", c->graph->nodes.size());
  if (out) *out = c->graph;
  return CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus *status) {
  ENTER;
  STREAM(s);
  if (CUresult r = implicit(s, "cuStreamIsCapturing")) return r;
  *status = !s->capture           ? CU_STREAM_CAPTURE_STATUS_NONE
            : s->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                  : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}
static CUresult capture_info(CUstream s, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *g, const CUgraphNode **deps, size_t *n) {
  STREAM(s);
  if (CUresult r = implicit(s, "cuStreamGetCaptureInfo")) return r;
  *status = !s->capture           ? CU_STREAM_CAPTURE_STATUS_NONE
            : s->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                  : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  if (!s->capture) return CUDA_SUCCESS;
  if (id) *id = s->capture->id;
  if (g) *g = s->capture->graph;
  s->listed.clear();
  for (size_t i : s->after) s->listed.push_back((CUgraphNode)s->capture->graph->nodes[i].get());
  if (deps) *deps = s->listed.data();
  if (n) *n = s->listed.size();
  return CUDA_SUCCESS;
}
CUresult cuStreamGetCaptureInfo_v2(CUstream s, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *g, const CUgraphNode **deps,
                                   size_t *n) {
  ENTER;
  return capture_info(s, status, id, g, deps, n);
}
CUresult cuStreamGetCaptureInfo_v3(CUstream s, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *g, const CUgraphNode **deps,
                                   const CUgraphEdgeData **edges, size_t *n) {
  ENTER;
  static std::vector<CUgraphEdgeData> plain;  // what edges are unless they are asked to be something else
  size_t own = 0;
  CUresult r = capture_info(s, status, id, g, deps, &own);
  if (n) *n = own;
  if (edges) plain.resize(std::max(plain.size(), own)), *edges = plain.data();
  return r;
}
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
  ENTER;
  std::swap(*mode, thread_mode);
  return CUDA_SUCCESS;
}

}  // extern "C"
