// Memory: allocations at once and in the order of a stream, and what can be asked of a pointer.
#include "capture.hpp"
#include "work.hpp"

extern "C" {

static CUresult allocate(CUdeviceptr *p, size_t n, vg::Kind kind) {
  NEED(p && n);
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  *p = vg::allocate(n, kind);
  return *p ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n) {
  ENTER;
  UNSAFE;
  return allocate(p, n, vg::DEVICE);
}
CUresult cuMemAllocPitch_v2(CUdeviceptr *p, size_t *pitch, size_t w, size_t h, unsigned) {
  ENTER;
  UNSAFE;
  *pitch = (w + 511) / 512 * 512;
  return allocate(p, *pitch * h, vg::DEVICE);
}
CUresult cuMemAllocManaged(CUdeviceptr *p, size_t n, unsigned) {
  ENTER;
  UNSAFE;
  return allocate(p, n, vg::MANAGED);
}
static CUresult in_order(CUstream s, uint64_t p, uint64_t n, const char *what) {  // memory that comes or goes in the order of a stream
  if (s->capture) return CUDA_SUCCESS;
  before(s);
  running = timeline(s);
  Operation o(what);
  return vg::touch(p, n, true) ? CUDA_SUCCESS : failed(CUDA_ERROR_LAUNCH_FAILED);
}
static CUresult allocate_in_order(CUdeviceptr *p, size_t n, CUstream s) {
  s = resolve(s);
  if (!valid(s)) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = allocate(p, n, vg::DEVICE)) return r;
  return in_order(s, *p, n, "its allocation");
}
CUresult cuMemAllocAsync(CUdeviceptr *p, size_t n, CUstream s) {
  ENTER;
  return allocate_in_order(p, n, s);
}
CUresult cuMemAllocFromPoolAsync(CUdeviceptr *p, size_t n, CUmemoryPool, CUstream s) {
  ENTER;
  return allocate_in_order(p, n, s);
}
static CUresult free_memory(CUdeviceptr p) {
  if (!p) return CUDA_SUCCESS;
  return vg::release(p) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemFree_v2(CUdeviceptr p) {  // waits for the device
  ENTER;
  UNSAFE;
  if (CUresult r = host_waits_for_all()) return r;
  return free_memory(p);
}
CUresult cuMemFreeAsync(CUdeviceptr p, CUstream s) {
  ENTER;
  s = resolve(s);
  if (!valid(s)) return CUDA_ERROR_INVALID_HANDLE;
  const vg::Allocation *a = vg::find_allocation(p);
  if (a && a->base == p)
    if (CUresult r = in_order(s, p, a->size, "its release")) return r;
  return free_memory(p);
}
CUresult cuMemHostAlloc(void **p, size_t n, unsigned) {
  ENTER;
  UNSAFE;
  return allocate((CUdeviceptr *)p, n, vg::HOST);
}
CUresult cuMemAllocHost_v2(void **p, size_t n) {
  ENTER;
  UNSAFE;
  return allocate((CUdeviceptr *)p, n, vg::HOST);
}
CUresult cuMemFreeHost(void *p) {
  ENTER;
  UNSAFE;
  if (CUresult r = host_waits_for_all()) return r;
  return free_memory((CUdeviceptr)p);
}
CUresult cuMemHostRegister_v2(void *p, size_t n, unsigned) {
  ENTER;
  UNSAFE;
  NEED(p && n);
  return vg::register_host((uint64_t)p, n) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}
CUresult cuMemHostUnregister(void *p) {
  ENTER;
  UNSAFE;
  if (CUresult r = host_waits_for_all()) return r;
  return vg::unregister_host((uint64_t)p) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *p, void *host, unsigned) {
  ENTER;
  NEED(p);
  *p = (CUdeviceptr)host;
  return vg::find_allocation(*p) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemHostGetFlags(unsigned *f, void *) {
  ENTER;
  *f = 0;
  return CUDA_SUCCESS;
}
CUresult cuMemGetInfo_v2(size_t *free_, size_t *total) {
  ENTER;
  if (free_) *free_ = vg::options().memory - vg::memory_used();
  if (total) *total = vg::options().memory;
  return CUDA_SUCCESS;
}
CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr p) {
  ENTER;
  const vg::Allocation *a = vg::find_allocation(p);
  if (!a) return CUDA_ERROR_NOT_FOUND;
  if (base) *base = a->base;
  if (size) *size = a->size;
  return CUDA_SUCCESS;
}

static CUresult pointer_attribute(void *out, CUpointer_attribute what, CUdeviceptr p, bool quiet) {
  const vg::Allocation *a = vg::find_allocation(p);
  bool host = a && a->kind == vg::HOST;
  if (!a && !quiet) return CUDA_ERROR_INVALID_VALUE;
  switch (what) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)out = a ? primary : nullptr; break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned *)out = a ? (host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE) : 0; break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)out = a ? p : 0; break;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      *(void **)out = a && a->kind != vg::DEVICE && a->kind != vg::MODULE ? (void *)p : nullptr;
      if (a && !*(void **)out && !quiet) return CUDA_ERROR_INVALID_VALUE;
      break;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: *(unsigned *)out = 0; break;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID: *(unsigned long long *)out = a ? a->id : 0; break;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(unsigned *)out = a && a->kind == vg::MANAGED; break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)out = a ? 0 : -2; break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *(CUdeviceptr *)out = a ? a->base : 0; break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *(size_t *)out = a ? a->size : 0; break;
    case CU_POINTER_ATTRIBUTE_MAPPED: *(bool *)out = a != nullptr; break;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: *(void **)out = nullptr; break;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: *(bool *)out = false; break;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: *(unsigned long long *)out = 0; break;
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE: *(bool *)out = false; break;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: *(unsigned *)out = 3; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void *out, CUpointer_attribute what, CUdeviceptr p) {
  ENTER;
  NEED(out);
  return pointer_attribute(out, what, p, false);
}
CUresult cuPointerGetAttributes(unsigned n, CUpointer_attribute *what, void **out, CUdeviceptr p) {
  ENTER;
  for (unsigned i = 0; i < n; i++)
    if (CUresult r = pointer_attribute(out[i], what[i], p, true)) return r;
  return CUDA_SUCCESS;
}
CUresult cuPointerSetAttribute(const void *, CUpointer_attribute, CUdeviceptr) {
  ENTER;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *p, CUdevice) {
  ENTER;
  *p = (CUmemoryPool)0x1000;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetMemPool(CUmemoryPool *p, CUdevice) {
  ENTER;
  *p = (CUmemoryPool)0x1000;
  return CUDA_SUCCESS;
}
CUresult cuDeviceSetMemPool(CUdevice, CUmemoryPool) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuMemPoolCreate(CUmemoryPool *p, const CUmemPoolProps *) {
  ENTER;
  *p = (CUmemoryPool)(0x1000 + next_id++);
  return CUDA_SUCCESS;
}
CUresult cuMemPoolDestroy(CUmemoryPool) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) {
  ENTER;
  return CUDA_SUCCESS;
}
static std::map<std::pair<CUmemoryPool, int>, uint64_t> pool_attributes;
CUresult cuMemPoolSetAttribute(CUmemoryPool p, CUmemPool_attribute a, void *v) {
  ENTER;
  pool_attributes[{p, a}] = a <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES ? (uint64_t)*(int *)v : *(uint64_t *)v;
  return CUDA_SUCCESS;
}
CUresult cuMemPoolGetAttribute(CUmemoryPool p, CUmemPool_attribute a, void *v) {
  ENTER;
  auto i = pool_attributes.find({p, a});
  bool flag = a <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES,
       now = a == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT || a == CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
  uint64_t x = now ? vg::memory_used() : i != pool_attributes.end() ? i->second : flag;
  if (flag) *(int *)v = (int)x;
  else *(uint64_t *)v = x;
  return CUDA_SUCCESS;
}

}  // extern "C"
