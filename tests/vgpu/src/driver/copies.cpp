// Copies and fills.
#include "capture.hpp"
#include "work.hpp"

extern "C" {

// What the host waits for: before a copy out of memory that can be paged out, all of the stream; after one to such memory, and after one
// that is not asynchronous between the device and memory that cannot, the copy.
static CUresult copied(Node &&x, CUstream stream, bool sync, const char *name) {
  CUstream s = resolve(stream);
  if (!valid(s)) return CUDA_ERROR_INVALID_HANDLE;
  bool out = host_memory(x.from), in = host_memory(x.to), waits = in && (sync || !pinned(x.to));
  waits |= out && sync && pinned(x.from);
  if (s->capture) return enqueue(s, std::move(x), name);
  if (sync && out && !pinned(x.from))
    if (CUresult r = host_waits(before(s))) return r;
  x.later = !waits && ((out && pinned(x.from)) || (in && pinned(x.to)));
  if (CUresult r = enqueue(s, std::move(x), name)) return r;
  return waits ? host_waits(order::known(timeline(s))) : CUDA_SUCCESS;
}
static CUresult copy(uint64_t to, uint64_t from, size_t n, CUstream s, bool sync, const char *name) {
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  if (sync)
    if (CUresult r = unsafe(name)) return r;
  Node x;
  x.type = CU_GRAPH_NODE_TYPE_MEMCPY;
  x.to = to, x.from = from, x.size = n;
  return copied(std::move(x), s, sync, name);
}
CUresult cuMemcpy(CUdeviceptr d, CUdeviceptr s, size_t n) {
  ENTER;
  return copy(d, s, n, nullptr, true, __func__);
}
CUresult cuMemcpyAsync(CUdeviceptr d, CUdeviceptr s, size_t n, CUstream st) {
  ENTER;
  return copy(d, s, n, st, false, __func__);
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr d, const void *s, size_t n) {
  ENTER;
  return copy(d, (uint64_t)s, n, nullptr, true, __func__);
}
CUresult cuMemcpyDtoH_v2(void *d, CUdeviceptr s, size_t n) {
  ENTER;
  return copy((uint64_t)d, s, n, nullptr, true, __func__);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr d, CUdeviceptr s, size_t n) {
  ENTER;
  return copy(d, s, n, nullptr, true, __func__);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void *s, size_t n, CUstream st) {
  ENTER;
  return copy(d, (uint64_t)s, n, st, false, __func__);
}
CUresult cuMemcpyDtoHAsync_v2(void *d, CUdeviceptr s, size_t n, CUstream st) {
  ENTER;
  return copy((uint64_t)d, s, n, st, false, __func__);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr d, CUdeviceptr s, size_t n, CUstream st) {
  ENTER;
  return copy(d, s, n, st, false, __func__);
}
CUresult cuMemcpyPeer(CUdeviceptr d, CUcontext, CUdeviceptr s, CUcontext, size_t n) {
  ENTER;
  return copy(d, s, n, nullptr, true, __func__);
}
CUresult cuMemcpyPeerAsync(CUdeviceptr d, CUcontext, CUdeviceptr s, CUcontext, size_t n, CUstream st) {
  ENTER;
  return copy(d, s, n, st, false, __func__);
}
static CUresult copy_2d(const CUDA_MEMCPY2D *c, CUstream s, bool sync, const char *name) {
  if (sync)
    if (CUresult r = unsafe(name)) return r;
  auto end = [](CUmemorytype t, const void *h, CUdeviceptr d) -> uint64_t {
    return t == CU_MEMORYTYPE_HOST ? (uint64_t)h : t == CU_MEMORYTYPE_DEVICE || t == CU_MEMORYTYPE_UNIFIED ? d : 0;
  };
  Node x;
  x.type = CU_GRAPH_NODE_TYPE_MEMCPY;
  x.to = end(c->dstMemoryType, c->dstHost, c->dstDevice), x.from = end(c->srcMemoryType, c->srcHost, c->srcDevice);
  if (!x.to || !x.from) return CUDA_ERROR_NOT_SUPPORTED;
  x.to_pitch = c->dstPitch, x.from_pitch = c->srcPitch, x.rows = c->Height, x.size = c->WidthInBytes;
  x.to += c->dstY * c->dstPitch + c->dstXInBytes, x.from += c->srcY * c->srcPitch + c->srcXInBytes;
  return copied(std::move(x), s, sync, name);
}
CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *c) {
  ENTER;
  return copy_2d(c, nullptr, true, __func__);
}
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *c) {
  ENTER;
  return copy_2d(c, nullptr, true, __func__);
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *c, CUstream s) {
  ENTER;
  return copy_2d(c, s, false, __func__);
}

static CUresult fill(CUdeviceptr d, unsigned v, unsigned width, size_t n, size_t rows, size_t pitch, CUstream s, const char *name) {
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  Node x;
  x.type = CU_GRAPH_NODE_TYPE_MEMSET;
  x.to = d, x.value = v, x.width = width, x.size = n, x.rows = rows, x.to_pitch = pitch;
  return enqueue(s, std::move(x), name);
}
CUresult cuMemsetD8_v2(CUdeviceptr d, unsigned char v, size_t n) {
  ENTER;
  return fill(d, v, 1, n, 1, 0, nullptr, __func__);
}
CUresult cuMemsetD16_v2(CUdeviceptr d, unsigned short v, size_t n) {
  ENTER;
  return fill(d, v, 2, n, 1, 0, nullptr, __func__);
}
CUresult cuMemsetD32_v2(CUdeviceptr d, unsigned v, size_t n) {
  ENTER;
  return fill(d, v, 4, n, 1, 0, nullptr, __func__);
}
CUresult cuMemsetD8Async(CUdeviceptr d, unsigned char v, size_t n, CUstream s) {
  ENTER;
  return fill(d, v, 1, n, 1, 0, s, __func__);
}
CUresult cuMemsetD16Async(CUdeviceptr d, unsigned short v, size_t n, CUstream s) {
  ENTER;
  return fill(d, v, 2, n, 1, 0, s, __func__);
}
CUresult cuMemsetD32Async(CUdeviceptr d, unsigned v, size_t n, CUstream s) {
  ENTER;
  return fill(d, v, 4, n, 1, 0, s, __func__);
}
CUresult cuMemsetD2D8_v2(CUdeviceptr d, size_t p, unsigned char v, size_t w, size_t h) {
  ENTER;
  return fill(d, v, 1, w, h, p, nullptr, __func__);
}
CUresult cuMemsetD2D8Async(CUdeviceptr d, size_t p, unsigned char v, size_t w, size_t h, CUstream s) {
  ENTER;
  return fill(d, v, 1, w, h, p, s, __func__);
}

}  // extern "C"
