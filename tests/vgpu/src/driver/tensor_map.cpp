// Tensor maps, in a form of our own.
#include <string.h>

#include "state.hpp"

extern "C" {

CUresult cuTensorMapEncodeTiled(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank, void *base, const cuuint64_t *dims,
                                const cuuint64_t *strides, const cuuint32_t *box, const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  ENTER;
  NEED(out && base && dims && box && steps && rank >= 1 && rank <= 5 && (strides || rank == 1));
  static const uint8_t sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
  if ((size_t)type >= sizeof sizes || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || swizzle > CU_TENSOR_MAP_SWIZZLE_128B)
    return CUDA_ERROR_NOT_SUPPORTED;
  vg::TensorMap m{};
  memcpy(m.magic, "VGPUTMAP", 8);
  m.base = (uint64_t)base, m.rank = rank, m.size = sizes[type], m.swizzle = swizzle ? 1 << swizzle : 0,
  m.fill = fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
  if (m.base % 16) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < rank; i++) {
    if (!dims[i] || dims[i] > 1ull << 32 || !box[i] || box[i] > 256 || !steps[i] || steps[i] > 8) return CUDA_ERROR_INVALID_VALUE;
    if (i + 1 < rank && (strides[i] % 16 || strides[i] >= 1ull << 40)) return CUDA_ERROR_INVALID_VALUE;
    m.dims[i] = dims[i], m.box[i] = box[i], m.steps[i] = steps[i];
    if (i + 1 < rank) m.strides[i] = strides[i];
  }
  if (box[0] * m.size % 16 || (m.swizzle && box[0] * m.size > m.swizzle * 16u)) return CUDA_ERROR_INVALID_VALUE;
  memset(out, 0, sizeof *out);
  memcpy(out, &m, sizeof m);
  return CUDA_SUCCESS;
}

}  // extern "C"
