// The engine: device memory with its shadow, kernels made of PTX, and launches with the sanitizer.
#pragma once
#include "code.hpp"
#include "launch.hpp"
#include "memory.hpp"
#include "options.hpp"

namespace vg {

bool find_on_host(const std::string &kind, const std::string &key, const std::string &what);  // prints it once; true where it is an error

// What cuTensorMapEncodeTiled makes, in a form of its own
struct TensorMap {
  char magic[8];
  uint64_t base, dims[5], strides[4];
  uint16_t box[5];
  uint8_t steps[5], rank, size, swizzle, fill;  // swizzle in 16 bytes; fill 1: NaN
};

}  // namespace vg
