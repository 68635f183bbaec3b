// What can be asked of a kernel, and changed.
#include "state.hpp"

extern "C" {

CUresult cuFuncLoad(CUfunction) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuFuncIsLoaded(CUfunctionLoadingState *s, CUfunction) {
  ENTER;
  *s = CU_FUNCTION_LOADING_STATE_LOADED;
  return CUDA_SUCCESS;
}
CUresult cuKernelGetName(const char **name, CUkernel k) {
  ENTER;
  *name = ((Kernel *)k)->function->name.c_str();
  return CUDA_SUCCESS;
}
CUresult cuFuncGetName(const char **name, CUfunction k) {
  ENTER;
  *name = ((Kernel *)k)->function->name.c_str();
  return CUDA_SUCCESS;
}
static CUresult parameter_info(Kernel *k, size_t i, size_t *offset, size_t *size) {
  if (!kernels.count(k)) return CUDA_ERROR_INVALID_HANDLE;
  auto &p = k->function->params;
  if (i >= p.size()) return CUDA_ERROR_INVALID_VALUE;
  if (offset) *offset = p[i].offset;
  if (size) *size = p[i].size;
  return CUDA_SUCCESS;
}
CUresult cuKernelGetParamInfo(CUkernel k, size_t i, size_t *offset, size_t *size) {
  ENTER;
  return parameter_info((Kernel *)k, i, offset, size);
}
CUresult cuFuncGetParamInfo(CUfunction k, size_t i, size_t *offset, size_t *size) {
  ENTER;
  return parameter_info((Kernel *)k, i, offset, size);
}

static CUresult get_attribute(int *v, CUfunction_attribute a, Kernel *k) {
  if (!kernels.count(k)) return CUDA_ERROR_INVALID_HANDLE;
  switch (a) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *v = (int)k->max_threads(); break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *v = (int)k->static_shared; break;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES: *v = (int)k->constant_size; break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *v = k->resources.local >= 0 ? k->resources.local : (int)k->function->local_bytes; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *v = k->resources.registers ? k->resources.registers : 32; break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *v = 90; break;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA: *v = 0; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *v = (int)k->dynamic_limit; break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *v = (int)k->carveout; break;
    default: *v = 0;
  }
  return CUDA_SUCCESS;
}
static CUresult set_attribute(CUfunction_attribute a, int v, Kernel *k) {
  if (!kernels.count(k)) return CUDA_ERROR_INVALID_HANDLE;
  if (a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    if (v < 0 || v + (int)k->static_shared > 227 << 10) return CUDA_ERROR_INVALID_VALUE;
    k->dynamic_limit = v;
  } else if (a == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) k->carveout = v;
  return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction k) {
  ENTER;
  return get_attribute(v, a, (Kernel *)k);
}
CUresult cuKernelGetAttribute(int *v, CUfunction_attribute a, CUkernel k, CUdevice) {
  ENTER;
  return get_attribute(v, a, (Kernel *)k);
}
CUresult cuFuncSetAttribute(CUfunction k, CUfunction_attribute a, int v) {
  ENTER;
  return set_attribute(a, v, (Kernel *)k);
}
CUresult cuKernelSetAttribute(CUfunction_attribute a, int v, CUkernel k, CUdevice) {
  ENTER;
  return set_attribute(a, v, (Kernel *)k);
}
CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuKernelSetCacheConfig(CUkernel, CUfunc_cache, CUdevice) {
  ENTER;
  return CUDA_SUCCESS;
}
CUresult cuFuncSetSharedMemConfig(CUfunction, CUsharedconfig) {
  ENTER;
  return CUDA_SUCCESS;
}

}  // extern "C"
