// Events.
#include "capture.hpp"
#include "work.hpp"

extern "C" {

CUresult cuEventCreate(CUevent *e, unsigned flags) {
  ENTER;
  NEED(e);
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  *e = new CUevent_st;
  (*e)->flags = flags;
  events.insert(*e);
  return CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent e) {
  ENTER_QUIET;
  if (!events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  events.erase(e);
  delete e;
  return CUDA_SUCCESS;
}
CUresult cuEventRecordWithFlags(CUevent e, CUstream s, unsigned flags) {
  ENTER;
  STREAM(s);
  if (!events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = implicit(s, "cuEventRecord")) return r;
  if (s->capture) {
    if (s->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (flags & CU_EVENT_RECORD_EXTERNAL) {
      Node n;
      n.type = CU_GRAPH_NODE_TYPE_EVENT_RECORD;
      n.event = e;
      return enqueue(s, std::move(n), "cuEventRecord");
    }
    e->capture = s->capture;
    e->after = s->after;
    return CUDA_SUCCESS;
  }
  e->capture = nullptr;
  e->recorded = true;
  e->clock = before(s);
  clock_gettime(CLOCK_MONOTONIC, &e->when);
  return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent e, CUstream s) { return cuEventRecordWithFlags(e, s, 0); }
CUresult cuEventQuery(CUevent e) {
  ENTER;
  if (!events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  if (e->capture) {
    invalidate(*e->capture, "cuEventQuery");
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  return host_waits(e->clock);
}
CUresult cuEventSynchronize(CUevent e) {
  ENTER;
  if (!events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  if (e->capture) {
    invalidate(*e->capture, "cuEventSynchronize");
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  return host_waits(e->clock);
}
CUresult cuEventElapsedTime_v2(float *ms, CUevent a, CUevent b) {
  ENTER;
  if (!events.count(a) || !events.count(b)) return CUDA_ERROR_INVALID_HANDLE;
  if (a->capture || b->capture || !a->recorded || !b->recorded || ((a->flags | b->flags) & CU_EVENT_DISABLE_TIMING))
    return CUDA_ERROR_INVALID_HANDLE;
  *ms = (float)((b->when.tv_sec - a->when.tv_sec) * 1e3 + (b->when.tv_nsec - a->when.tv_nsec) * 1e-6);
  return CUDA_SUCCESS;
}
#undef cuEventElapsedTime
CUresult cuEventElapsedTime(float *ms, CUevent a, CUevent b) { return cuEventElapsedTime_v2(ms, a, b); }

}  // extern "C"
