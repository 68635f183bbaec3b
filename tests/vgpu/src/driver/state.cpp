// What all functions of the driver share.
#include "state.hpp"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "capture.hpp"
#include "work.hpp"

namespace driver {

std::recursive_mutex guard;
bool started;
int stuck;  // the error that a context never recovers from
uint64_t next_id = 1;
CUctx_st *primary;
int primary_uses;
thread_local std::vector<CUcontext> contexts;
thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
std::set<CUstream> streams;
std::set<CUevent> events;
std::set<Kernel *> kernels;
std::set<CUmodule> modules;
std::vector<std::shared_ptr<Capture>> captures;
CUstream_st legacy, per_thread;

void trace(const char *name) {
  static bool on = getenv("VGPU_LOG") && atoi(getenv("VGPU_LOG")) > 1;
  if (on) fprintf(stderr, "vgpu: %s\n", name);
}

CUcontext context() { return contexts.empty() ? nullptr : contexts.back(); }

CUresult failed(int e) {
  if (e && vg::options().sticky) stuck = e;
  return R(e);
}

CUcontext primary_context() {
  if (!primary) primary = new CUctx_st{0, true, next_id++};
  return primary;
}

}  // namespace driver

extern "C" {

CUresult cuInit(unsigned) {
  ENTER_QUIET;
  static bool forked;  // a process that was made by fork has no use of what its parent began
  static int watched = pthread_atfork(nullptr, nullptr, [] { forked = started, started = false; });
  if (forked || watched) return CUDA_ERROR_NOT_INITIALIZED;
  started = true;
  return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int *v) {
  NEED(v);
  static int version = getenv("VGPU_DRIVER") ? atoi(getenv("VGPU_DRIVER")) : 13000;
  *v = version;
  return CUDA_SUCCESS;
}

// For python/vgpu.py: goes on after whatever went wrong, as a new process would.
void vgpu_forget(void) {
  Hold hold(guard);
  for (auto &c : captures)
    for (CUstream s : c->streams) s->capture = nullptr, s->after.clear();
  captures.clear();
  host_waits_for_all();
  stuck = 0;
  vg::forget_findings();
}

}  // extern "C"
