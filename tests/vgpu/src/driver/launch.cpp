// Launches, once it is sure that a chip would do them; and how many blocks it would run at a time.
#include <string.h>

#include <algorithm>

#include "work.hpp"

static CUresult launch(Kernel *k, const vg::Launch &w, CUstream stream, void **parameters, void **extra, bool early = false) {
  if (!kernels.count(k)) return CUDA_ERROR_INVALID_HANDLE;
  uint64_t threads = (uint64_t)w.block[0] * w.block[1] * w.block[2];
  auto refuse = [&](CUresult r, const char *why) {
    vg::log("launch of %s refused: %s", k->name.c_str(), why);
    return r;
  };
  if (!threads || threads > 1024 || w.block[0] > 1024 || w.block[1] > 1024 || w.block[2] > 64)
    return refuse(CUDA_ERROR_INVALID_VALUE, "block");
  if (!w.grid[0] || !w.grid[1] || !w.grid[2] || w.grid[0] > 0x7fffffffu || w.grid[1] > 65535 || w.grid[2] > 65535)
    return refuse(CUDA_ERROR_INVALID_VALUE, "grid");
  if (k->static_shared + w.dynamic_shared > std::max(k->dynamic_limit + (k->dynamic_limit > 48 << 10 ? k->static_shared : 0), 48u << 10))
    return refuse(CUDA_ERROR_INVALID_VALUE, "shared memory");
  if (k->function->max_threads && threads > k->function->max_threads)
    return refuse(CUDA_ERROR_INVALID_VALUE, "more threads than the kernel's launch bounds");
  if (threads > k->max_threads()) return refuse(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "registers");
  Node n;
  n.type = CU_GRAPH_NODE_TYPE_KERNEL;
  n.kernel = k;
  n.where = w;
  n.early = early;
  n.parameters.resize(k->function->param_bytes + 16);
  if (parameters) {
    size_t i = 0;
    for (auto &p : k->function->params) {
      if (!parameters[i]) return refuse(CUDA_ERROR_INVALID_VALUE, "a parameter is missing");
      memcpy(n.parameters.data() + p.offset, parameters[i++], p.size);
    }
  } else if (extra) {
    const void *buffer = nullptr;
    size_t size = 0;
    for (void **e = extra; *e != CU_LAUNCH_PARAM_END; e += 2) {
      if (e[0] == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = e[1];
      if (e[0] == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *(size_t *)e[1];
    }
    if (size < k->function->param_bytes) return refuse(CUDA_ERROR_INVALID_VALUE, "the buffer of parameters is too short");
    memcpy(n.parameters.data(), buffer, k->function->param_bytes);
  } else if (!k->function->params.empty()) return refuse(CUDA_ERROR_INVALID_VALUE, "no parameters");
  return enqueue(stream, std::move(n), "a launch");
}

static int blocks_per_sm(Kernel *k, uint32_t threads, size_t dynamic) {
  if (!threads || threads > k->max_threads()) return 0;
  uint32_t warps = (threads + 31) / 32, regs = k->resources.registers ? k->resources.registers : 32;
  uint32_t per_warp = (regs * 32 + 255) / 256 * 256, by_regs = 65536 / 4 / per_warp * 4 / warps;
  uint32_t shared = ((uint32_t)(k->static_shared + dynamic) + 127) / 128 * 128 + 1024;
  return (int)std::min({32u, 64 / warps, by_regs, (228u << 10) / shared});
}

extern "C" {

CUresult cuLaunchKernel(CUfunction k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                        CUstream s, void **p, void **extra) {
  ENTER;
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  return launch((Kernel *)k, {{gx, gy, gz}, {bx, by, bz}, shared}, s, p, extra);
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction k, void **p, void **extra) {
  ENTER;
  if (!context()) return CUDA_ERROR_INVALID_CONTEXT;
  bool early = false;
  for (unsigned i = 0; i < c->numAttrs; i++) {
    auto &a = c->attrs[i];
    if (a.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) early = a.value.programmaticStreamSerializationAllowed;
    if (a.id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE && a.value.cooperative) return CUDA_ERROR_NOT_SUPPORTED;
    if (a.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION && (a.value.clusterDim.x > 1 || a.value.clusterDim.y > 1 || a.value.clusterDim.z > 1))
      return CUDA_ERROR_NOT_SUPPORTED;
  }
  return launch((Kernel *)k, {{c->gridDimX, c->gridDimY, c->gridDimZ}, {c->blockDimX, c->blockDimY, c->blockDimZ}, c->sharedMemBytes},
                c->hStream, p, extra, early);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, CUfunction k, int threads, size_t dynamic, unsigned) {
  ENTER;
  if (!kernels.count((Kernel *)k)) return CUDA_ERROR_INVALID_HANDLE;
  *n = blocks_per_sm((Kernel *)k, threads, dynamic);
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction k, int threads, size_t dynamic) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, k, threads, dynamic, 0);
}
CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, CUfunction k, CUoccupancyB2DSize dynamic_of, size_t dynamic,
                                                   int limit, unsigned) {
  ENTER;
  if (!kernels.count((Kernel *)k)) return CUDA_ERROR_INVALID_HANDLE;
  int best = 0;
  for (int t = std::min(limit > 0 ? limit : 1024, 1024) / 32 * 32; t >= 32; t -= 32) {
    int n = blocks_per_sm((Kernel *)k, t, dynamic_of ? dynamic_of(t) : dynamic);
    if (n * t > best) best = n * t, *block = t, *grid = n * 132;
  }
  return best ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction k, CUoccupancyB2DSize f, size_t dynamic, int limit) {
  return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, k, f, dynamic, limit, 0);
}
CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *n, CUfunction k, int blocks, int) {
  ENTER;
  *n = (228u << 10) / std::max(blocks, 1) - 1024 - ((Kernel *)k)->static_shared;
  return CUDA_SUCCESS;
}

}  // extern "C"
