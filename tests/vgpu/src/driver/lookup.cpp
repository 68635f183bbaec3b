// Finding functions of the driver by name, with what every version calls them; what is not here says so when it is called.
#include <dlfcn.h>

#include <utility>

#include "state.hpp"
#undef cuGetProcAddress

// Functions that say their name and return CUDA_ERROR_NOT_SUPPORTED: one of these for each name that was asked for.
static const size_t MOST = 1024;
static string names[MOST];
template <size_t i> static CUresult missing_called() {
  vg::log("NOT SUPPORTED: %s", names[i].c_str());
  return CUDA_ERROR_NOT_SUPPORTED;
}
template <size_t... i> static void *stub(size_t n, std::index_sequence<i...>) {
  static CUresult (*const all[])() = {missing_called<i>...};
  return (void *)all[n];
}

static void *missing(const string &name) {
  static std::map<string, void *> made;
  auto known = made.find(name);
  if (known != made.end()) return known->second;
  size_t n = made.size();
  if (n == MOST) return nullptr;
  names[n] = name;
  return made[name] = stub(n, std::make_index_sequence<MOST>());
}

extern "C" {

CUresult cuGetProcAddress_v2(const char *symbol, void **out, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status) {
  Hold hold(guard);
  NEED(symbol && out);
  (void)flags;
  static void *self = [] {
    Dl_info info;
    dladdr((void *)&cuInit, &info);
    return dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  }();
  // Where a version changed the arguments, the name alone does not do.
  struct Versions {
    int from;
    const char *name;
  };
  static const std::map<string, std::vector<Versions>> changed = {
      {"cuStreamGetCaptureInfo", {{12030, "cuStreamGetCaptureInfo_v3"}, {11030, "cuStreamGetCaptureInfo_v2"}}},
      {"cuGraphInstantiate", {{12000, "cuGraphInstantiateWithFlags"}, {11000, "cuGraphInstantiate_v2"}}},
      {"cuCtxCreate", {{13000, "cuCtxCreate_v4"}, {3020, "cuCtxCreate_v2"}}},
      {"cuGetProcAddress", {{12000, "cuGetProcAddress_v2"}, {0, "cuGetProcAddress"}}},
      {"cuCtxSynchronize", {{0, "cuCtxSynchronize"}}},
      {"cuCtxGetDevice", {{0, "cuCtxGetDevice"}}},
      {"cuStreamGetCtx", {{12050, "cuStreamGetCtx_v2"}, {0, "cuStreamGetCtx"}}}};
  void *found = nullptr;
  string name = symbol;
  auto c = changed.find(name);
  if (c != changed.end()) {
    for (auto &v : c->second)
      if (version >= v.from) {
        found = dlsym(self, v.name);
        break;
      }
  } else
    for (const char *suffix : {"_v4", "_v3", "_v2", ""})
      if ((found = dlsym(self, (name + suffix).c_str()))) break;
  if (!found && name.compare(0, 2, "cu") == 0) found = missing(name);
  *out = found;
  if (status) *status = found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuGetProcAddress(const char *symbol, void **out, int version, cuuint64_t flags) {
  return cuGetProcAddress_v2(symbol, out, version, flags, nullptr);
}

CUresult cuProfilerStart(void) { return CUDA_SUCCESS; }
CUresult cuProfilerStop(void) { return CUDA_SUCCESS; }

}  // extern "C"
