// Modules: PTX, translated, compiled and loaded.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "ptx/ptx.hpp"

namespace vg {

struct Kernel;
struct Code {  // a module
  ptx::Module module;
  std::string path;  // of the PTX in the cache
  void *library = nullptr;
  uint64_t *symbols = nullptr;
  uint32_t *shareds = nullptr;
  std::map<std::string, std::unique_ptr<Kernel>> kernels;
  std::map<std::string, uint64_t> globals;
  ~Code();
};
struct Resources {  // of the machine code, where there is any
  int registers = 0, shared = -1, local = -1;
};
struct Kernel {
  Code *code;
  const ptx::Function *function;
  std::string name;
  void (*entry)(VgThread *, const u8 *);
  Resources resources;
  uint32_t static_shared = 0, constant_size = 0, dynamic_limit = 48 << 10, carveout = 0;
  std::vector<std::pair<int, uint32_t>> shared_layout;  // index in VGSHARED, offset
  uint32_t max_threads() const;
};
std::unique_ptr<Code> load(const std::string &ptx, std::string &error);

std::string demangle(const std::string &name);

}  // namespace vg
