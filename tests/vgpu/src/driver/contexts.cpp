// Contexts: there can be many, and all see the same device and its memory.
#include <algorithm>

#include "capture.hpp"
#include "work.hpp"

extern "C" {

CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d) {
  ENTER;
  NEED(c);
  if (d) return CUDA_ERROR_INVALID_DEVICE;
  primary_uses++;
  *c = primary_context();
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
  ENTER_QUIET;
  if (primary_uses) primary_uses--;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxReset_v2(CUdevice) {
  ENTER_QUIET;
  stuck = 0;
  primary_uses = 0;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice, unsigned f) {
  ENTER;
  if (primary) primary->flags = f;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned *f, int *active) {
  ENTER;
  if (f) *f = primary ? primary->flags : 0;
  if (active) *active = primary_uses > 0;
  return CUDA_SUCCESS;
}
CUresult cuCtxCreate_v4(CUcontext *c, CUctxCreateParams *, unsigned f, CUdevice) {
  ENTER;
  NEED(c);
  *c = new CUctx_st{f, false, next_id++};
  contexts.push_back(*c);
  return CUDA_SUCCESS;
}
CUresult cuCtxCreate_v2(CUcontext *c, unsigned f, CUdevice d) { return cuCtxCreate_v4(c, nullptr, f, d); }
CUresult cuCtxDestroy_v2(CUcontext c) {
  ENTER_QUIET;
  contexts.erase(std::remove(contexts.begin(), contexts.end(), c), contexts.end());
  return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent_v2(CUcontext c) {
  ENTER_QUIET;
  contexts.push_back(c);
  return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent_v2(CUcontext *c) {
  ENTER_QUIET;
  if (contexts.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (c) *c = contexts.back();
  contexts.pop_back();
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext c) {
  ENTER_QUIET;
  if (!contexts.empty()) contexts.pop_back();
  if (c) contexts.push_back(c);
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *c) {
  ENTER_QUIET;
  if (!started) return CUDA_ERROR_NOT_INITIALIZED;
  NEED(c);
  *c = context();
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *d) {
  ENTER_QUIET;
  NEED(d);
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  *d = 0;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice_v2(CUdevice *d, CUcontext) {
  NEED(d);
  *d = 0;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetFlags(unsigned *f) {
  ENTER;
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  *f = context()->flags;
  return CUDA_SUCCESS;
}
CUresult cuCtxSetFlags(unsigned f) {
  ENTER;
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  context()->flags = f;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetId(CUcontext c, unsigned long long *id) {
  ENTER;
  if (!c) c = context();
  if (!c) return CUDA_ERROR_INVALID_CONTEXT;
  *id = c->id;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetApiVersion(CUcontext, unsigned *v) {
  ENTER;
  *v = 13000;
  return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize(void) {
  ENTER;
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  if (captures.empty()) return host_waits_for_all();
  for (auto &c : captures) invalidate(*c, "cuCtxSynchronize");
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}
CUresult cuCtxSynchronize_v2(CUcontext) { return cuCtxSynchronize(); }
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  ENTER;
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetLimit(size_t *v, CUlimit l) {
  ENTER;
  *v = l == CU_LIMIT_STACK_SIZE ? 1024 : l == CU_LIMIT_MALLOC_HEAP_SIZE ? 8 << 20 : l == CU_LIMIT_PRINTF_FIFO_SIZE ? 1 << 20 : 0;
  return CUDA_SUCCESS;
}
CUresult cuCtxSetLimit(CUlimit, size_t) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCacheConfig(CUfunc_cache *c) {
  ENTER;
  *c = CU_FUNC_CACHE_PREFER_NONE;
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCacheConfig(CUfunc_cache) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuCtxResetPersistingL2Cache(void) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuCtxEnablePeerAccess(CUcontext, unsigned) {
  ENTER;
  return CUDA_SUCCESS;
}

}  // extern "C"
