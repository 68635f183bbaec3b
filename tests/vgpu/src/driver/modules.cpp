// Modules and libraries: a library is a module here.
#include "modules.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.hpp"
#include "images.hpp"
#include "work.hpp"

namespace driver {

CUresult load_module(CUmodule *out, const void *data, const char *name) {
  NEED(out && data);
  UNSAFE;
  (void)name;
  Image image = read_image(data);
  if (image.ptx.find(".version") == string::npos) {
    fprintf(stderr, "vgpu: cannot load a module: %s\n", image.what.empty() ? "neither PTX nor a cubin" : image.what.c_str());
    return image.what.empty() ? CUDA_ERROR_INVALID_IMAGE : CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  string error;
  auto code = vg::load(image.ptx, error);
  if (!code) {
    fprintf(stderr, "vgpu: cannot load a module: %s\n", error.c_str());
    if (const char *to = getenv("VGPU_KEEP"))
      if (FILE *f = fopen(to, "w")) fputs(image.ptx.c_str(), f), fclose(f);
    return CUDA_ERROR_INVALID_PTX;
  }
  for (auto &k : code->kernels) {
    auto r = image.resources.find(k.first);
    if (r != image.resources.end()) k.second->resources = r->second;
    kernels.insert(k.second.get());
  }
  *out = new CUmod_st{std::move(code)};
  modules.insert(*out);
  return CUDA_SUCCESS;
}

static CUresult unload(CUmodule m) {
  if (!modules.count(m)) return CUDA_ERROR_INVALID_HANDLE;
  host_waits_for_all();
  for (auto &k : m->code->kernels) kernels.erase(k.second.get());
  modules.erase(m);
  delete m;
  return CUDA_SUCCESS;
}

static CUresult find_kernel(void **out, CUmodule m, const char *name) {
  NEED(out && name);
  if (!modules.count(m)) return CUDA_ERROR_INVALID_HANDLE;
  auto k = m->code->kernels.find(name);
  if (k == m->code->kernels.end()) return CUDA_ERROR_NOT_FOUND;
  *out = k->second.get();
  return CUDA_SUCCESS;
}

static CUresult find_global(CUdeviceptr *at, size_t *bytes, CUmodule m, const char *name) {
  if (!modules.count(m)) return CUDA_ERROR_INVALID_HANDLE;
  auto g = m->code->globals.find(name);
  if (g == m->code->globals.end()) return CUDA_ERROR_NOT_FOUND;
  const vg::Allocation *a = vg::find_allocation(g->second);
  if (at) *at = g->second;
  if (bytes) *bytes = a ? a->size : 0;
  return CUDA_SUCCESS;
}

}  // namespace driver

extern "C" {

CUresult cuModuleLoadData(CUmodule *m, const void *image) {
  ENTER;
  return load_module(m, image, __func__);
}
CUresult cuModuleLoadDataEx(CUmodule *m, const void *image, unsigned, CUjit_option *, void **) {
  ENTER;
  return load_module(m, image, __func__);
}
CUresult cuModuleLoadFatBinary(CUmodule *m, const void *image) {
  ENTER;
  return load_module(m, image, __func__);
}
CUresult cuModuleLoad(CUmodule *m, const char *path) {
  ENTER;
  FILE *f = fopen(path, "rb");
  if (!f) return CUDA_ERROR_FILE_NOT_FOUND;
  string s;
  char b[65536];
  for (size_t n; (n = fread(b, 1, sizeof b, f)) > 0;) s.append(b, n);
  fclose(f);
  return load_module(m, s.c_str(), __func__);
}
CUresult cuModuleUnload(CUmodule m) {
  ENTER_QUIET;
  return unload(m);
}
CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
  ENTER;
  return find_kernel((void **)f, m, name);
}
CUresult cuModuleGetGlobal_v2(CUdeviceptr *p, size_t *n, CUmodule m, const char *name) {
  ENTER;
  return find_global(p, n, m, name);
}
CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *m) {
  ENTER;
  *m = CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunctionCount(unsigned *n, CUmodule m) {
  ENTER;
  *n = (unsigned)m->code->kernels.size();
  return CUDA_SUCCESS;
}
CUresult cuLibraryLoadData(CUlibrary *l, const void *image, CUjit_option *, void **, unsigned, CUlibraryOption *, void **, unsigned) {
  ENTER;
  return load_module((CUmodule *)l, image, __func__);
}
CUresult cuLibraryUnload(CUlibrary l) {
  ENTER_QUIET;
  return unload((CUmodule)l);
}
CUresult cuLibraryGetKernel(CUkernel *k, CUlibrary l, const char *name) {
  ENTER;
  return find_kernel((void **)k, (CUmodule)l, name);
}
CUresult cuLibraryGetModule(CUmodule *m, CUlibrary l) {
  ENTER;
  *m = (CUmodule)l;
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetGlobal(CUdeviceptr *p, size_t *n, CUlibrary l, const char *name) {
  ENTER;
  return find_global(p, n, (CUmodule)l, name);
}
CUresult cuLibraryGetManaged(CUdeviceptr *p, size_t *n, CUlibrary l, const char *name) {
  ENTER;
  return find_global(p, n, (CUmodule)l, name);
}
CUresult cuLibraryGetKernelCount(unsigned *n, CUlibrary l) {
  ENTER;
  *n = (unsigned)((CUmodule)l)->code->kernels.size();
  return CUDA_SUCCESS;
}
CUresult cuLibraryEnumerateKernels(CUkernel *out, unsigned n, CUlibrary l) {
  ENTER;
  unsigned i = 0;
  for (auto &k : ((CUmodule)l)->code->kernels)
    if (i < n) out[i++] = (CUkernel)k.second.get();
  return CUDA_SUCCESS;
}
CUresult cuKernelGetFunction(CUfunction *f, CUkernel k) {
  ENTER;
  *f = (CUfunction)k;
  return CUDA_SUCCESS;
}
CUresult cuKernelGetLibrary(CUlibrary *l, CUkernel k) {
  ENTER;
  for (CUmodule m : modules)
    if (m->code.get() == ((Kernel *)k)->code) {
      *l = (CUlibrary)m;
      return CUDA_SUCCESS;
    }
  return CUDA_ERROR_INVALID_HANDLE;
}
CUresult cuFuncGetModule(CUmodule *m, CUfunction k) { return cuKernelGetLibrary((CUlibrary *)m, (CUkernel)k); }

// ---- the linker: PTX, one after the other

CUresult cuLinkCreate_v2(unsigned, CUjit_option *, void **, CUlinkState *s) {
  ENTER;
  *s = new CUlinkState_st;
  return CUDA_SUCCESS;
}
static CUresult link_data(CUlinkState s, const void *data, size_t n) {
  Image image;
  if (n > 4 && !memcmp(data, "\177ELF", 4)) read_cubin((const uint8_t *)data, image);
  else image.ptx.assign((const char *)data, strnlen((const char *)data, n));
  if (image.ptx.find(".version") == string::npos) return CUDA_ERROR_INVALID_PTX;
  s->ptx += image.ptx + "\n";
  return CUDA_SUCCESS;
}
CUresult cuLinkAddData_v2(CUlinkState s, CUjitInputType, void *data, size_t n, const char *, unsigned, CUjit_option *, void **) {
  ENTER;
  return link_data(s, data, n);
}
CUresult cuLinkAddFile_v2(CUlinkState, CUjitInputType, const char *, unsigned, CUjit_option *, void **) {
  ENTER;
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuLinkComplete(CUlinkState s, void **out, size_t *n) {
  ENTER;
  s->out.assign(s->ptx.begin(), s->ptx.end());
  s->out.push_back(0);
  *out = s->out.data();
  *n = s->out.size();
  return CUDA_SUCCESS;
}
CUresult cuLinkDestroy(CUlinkState s) {
  ENTER_QUIET;
  delete s;
  return CUDA_SUCCESS;
}

}  // extern "C"
