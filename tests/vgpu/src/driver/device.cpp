// The one device, and what it says of itself.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.hpp"

extern "C" {

CUresult cuDeviceGetCount(int *n) {
  ENTER;
  NEED(n);
  const char *v = getenv("CUDA_VISIBLE_DEVICES");
  *n = v && (!*v || *v == '-') ? 0 : 1;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice *d, int i) {
  ENTER;
  NEED(d);
  if (i) return CUDA_ERROR_INVALID_DEVICE;
  *d = 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char *s, int n, CUdevice d) {
  ENTER;
  NEED(s);
  if (d) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(s, n, "virtual H100 (CPU)");
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid_v2(CUuuid *u, CUdevice d) {
  ENTER;
  NEED(u);
  if (d) return CUDA_ERROR_INVALID_DEVICE;
  memcpy(u->bytes, "virtual-H100-CPU", 16);
  return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *n, CUdevice d) {
  ENTER;
  NEED(n);
  if (d) return CUDA_ERROR_INVALID_DEVICE;
  *n = vg::options().memory;
  return CUDA_SUCCESS;
}
CUresult cuDeviceComputeCapability(int *a, int *b, CUdevice) {
  ENTER;
  *a = 9, *b = 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetPCIBusId(char *s, int n, CUdevice) {
  ENTER;
  snprintf(s, n, "0000:01:00.0");
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetByPCIBusId(CUdevice *d, const char *) {
  ENTER;
  *d = 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceCanAccessPeer(int *can, CUdevice, CUdevice) {
  ENTER;
  *can = 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetP2PAttribute(int *v, CUdevice_P2PAttribute, CUdevice, CUdevice) {
  ENTER;
  *v = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice d) {
  ENTER;
  NEED(v);
  if (d) return CUDA_ERROR_INVALID_DEVICE;
  static const std::map<int, int> table = {{CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
                                           {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
                                           {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
                                           {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
                                           {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 0x7fffffff},
                                           {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
                                           {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
                                           {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10},
                                           {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 227 << 10},
                                           {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 228 << 10},
                                           {CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 1024},
                                           {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 64 << 10},
                                           {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
                                           {CU_DEVICE_ATTRIBUTE_MAX_PITCH, 0x7fffffff},
                                           {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 65536},
                                           {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 65536},
                                           {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1980000},
                                           {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 2619000},
                                           {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 5120},
                                           {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 50 << 20},
                                           {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048},
                                           {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 32},
                                           {CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, 512},
                                           {CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT, 32},
                                           {CU_DEVICE_ATTRIBUTE_SURFACE_ALIGNMENT, 512},
                                           {CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1},
                                           {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 3},
                                           {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},
                                           {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
                                           {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 0},
                                           {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1},
                                           {CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 1},
                                           {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
                                           {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9},
                                           {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
                                           {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1},
                                           {CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED, 1},
                                           {CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED, 1},
                                           {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1},
                                           {CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED, 0},
                                           {CU_DEVICE_ATTRIBUTE_SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO, 2},
                                           {CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 1},
                                           {CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED, 1},
                                           {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 0},
                                           {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1},
                                           {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
                                           {CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1}};
  auto i = table.find(a);
  *v = i == table.end() ? 0 : i->second;
  return CUDA_SUCCESS;
}

}  // extern "C"
