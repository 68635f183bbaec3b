// Streams.
#include <algorithm>

#include "capture.hpp"
#include "work.hpp"

extern "C" {

CUresult cuStreamCreateWithPriority(CUstream *s, unsigned flags, int priority) {
  ENTER;
  NEED(s);
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  *s = new CUstream_st;
  (*s)->flags = flags, (*s)->priority = priority, (*s)->id = next_id++;
  streams.insert(*s);
  return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream *s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }
CUresult cuStreamDestroy_v2(CUstream s) {
  ENTER_QUIET;
  if (!streams.count(s)) return CUDA_ERROR_INVALID_HANDLE;
  if (s->capture) {
    invalidate(*s->capture, "cuStreamDestroy");
    s->capture->streams.erase(s);
  }
  order::close(s->timeline);
  streams.erase(s);
  delete s;
  return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream s) {
  ENTER;
  STREAM(s);
  if (s->capture) {
    invalidate(*s->capture, "cuStreamSynchronize");
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (CUresult r = implicit(s, "cuStreamSynchronize")) return r;
  return host_waits(before(s));
}
CUresult cuStreamQuery(CUstream s) {
  ENTER;
  STREAM(s);
  if (s->capture) {
    invalidate(*s->capture, "cuStreamQuery");
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (CUresult r = implicit(s, "cuStreamQuery")) return r;
  return host_waits(before(s));
}
CUresult cuStreamGetFlags(CUstream s, unsigned *f) {
  ENTER;
  STREAM(s);
  *f = s->flags;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetPriority(CUstream s, int *p) {
  ENTER;
  STREAM(s);
  *p = s->priority;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetId(CUstream s, unsigned long long *id) {
  ENTER;
  STREAM(s);
  *id = s->id;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetDevice(CUstream s, CUdevice *d) {
  ENTER;
  STREAM(s);
  *d = 0;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetCtx(CUstream s, CUcontext *c) {
  ENTER;
  STREAM(s);
  *c = context() ? context() : primary;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetCtx_v2(CUstream s, CUcontext *c, CUgreenCtx *g) {
  ENTER;
  STREAM(s);
  if (g) *g = nullptr;
  *c = context() ? context() : primary;
  return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream s, CUevent e, unsigned) {
  ENTER;
  STREAM(s);
  if (!events.count(e)) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = implicit(s, "cuStreamWaitEvent")) return r;
  if (e->capture) {
    if (s->capture && s->capture != e->capture) {
      invalidate(*s->capture, "merge");
      invalidate(*e->capture, "merge");
      return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    bool active = std::find(captures.begin(), captures.end(), e->capture) != captures.end();
    if (!active) return s->capture ? CUDA_ERROR_STREAM_CAPTURE_ISOLATION : CUDA_SUCCESS;
    if (s == &legacy) {
      invalidate(*e->capture, "the legacy stream waits for a capture");
      return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    s->capture = e->capture;
    s->capture->streams.insert(s);
    s->after.insert(e->after.begin(), e->after.end());
    return CUDA_SUCCESS;
  }
  if (s->capture && e->recorded) {
    invalidate(*s->capture, "a wait for an event from outside");
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (e->recorded && !s->capture) order::join(before(s), e->clock);
  return CUDA_SUCCESS;
}
CUresult cuLaunchHostFunc(CUstream s, CUhostFn f, void *data) {
  ENTER;
  Node x;
  x.type = CU_GRAPH_NODE_TYPE_HOST;
  x.host = f, x.data = data;
  return enqueue(s, std::move(x), __func__);
}
CUresult cuStreamAddCallback(CUstream s, CUstreamCallback f, void *data, unsigned) {
  CUstream given = s;
  {
    ENTER;
    STREAM(s);
    if (s->capture) {
      invalidate(*s->capture, "cuStreamAddCallback");
      return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    before(s);
  }
  f(given, CUDA_SUCCESS, data);
  return CUDA_SUCCESS;
}
CUresult cuStreamAttachMemAsync(CUstream, CUdeviceptr, size_t, unsigned) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuStreamSetAttribute(CUstream, CUstreamAttrID, const CUstreamAttrValue *) {
  ENTER;
  return CUDA_SUCCESS;
}

}  // extern "C"
