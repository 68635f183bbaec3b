// Stands before the real libnvJitLink, which does all the work: what it was given as PTX (or what it makes of link-time code) is put after
// the cubin that it returns, where the virtual driver finds it. A cubin with something after it is still a cubin. With VGPU_MACHINE_CODE=0
// link-time code becomes PTX alone, in two thirds of the time: what a cubin says of registers is not known then.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

using std::string;

namespace {

typedef void *Handle;
enum { PTX = 2, LTOIR = 3 };

struct Input {
  int kind;
  string data, name;
};
struct Link {
  std::vector<string> options;
  std::vector<Input> inputs;
  string trailer;
  Handle instead = nullptr;  // made the PTX where no machine code is made: errors are told by it
};

std::mutex guard;
std::map<Handle, Link> links;

// The library lies beside the package that asks for it: .../site-packages/nvidia/cu13/lib.
void *real_library(void *caller) {
  static void *library = nullptr;
  if (library) return library;
  std::vector<string> paths;
  if (const char *p = getenv("VGPU_NVJITLINK")) paths.push_back(p);
  Dl_info info;
  if (dladdr(caller, &info) && info.dli_fname) {
    string s = info.dli_fname;
    for (size_t at = s.rfind('/'); at != string::npos && at > 0; at = s.rfind('/', at - 1))
      paths.push_back(s.substr(0, at) + "/nvidia/cu13/lib/libnvJitLink.so.13");
  }
  paths.push_back("/usr/local/cuda/lib64/libnvJitLink.so.13");
  for (auto &p : paths)
    if (access(p.c_str(), R_OK) == 0 && (library = dlopen(p.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND))) return library;
  fprintf(stderr, "vgpu: the real libnvJitLink.so.13 is not found: set VGPU_NVJITLINK\n");
  abort();
}

template <class F> F real(const char *name, void *caller) {
  void *f = dlsym(real_library(caller), name);
  if (!f) {
    fprintf(stderr, "vgpu: libnvJitLink has no %s\n", name);
    abort();
  }
  return (F)f;
}
#define REAL(type, name) real<type>(name, __builtin_return_address(0))

bool without_machine_code(const Link &l) {
  const char *wish = getenv("VGPU_MACHINE_CODE");
  if (!wish || strcmp(wish, "0") || l.inputs.empty()) return false;
  for (auto &i : l.inputs)
    if (i.kind != LTOIR) return false;
  for (auto &o : l.options)
    if (o == "-ptx" || o == "-verbose") return false;
  return true;
}

Handle speaker(Handle h) {
  std::lock_guard<std::mutex> hold(guard);
  Handle instead = links[h].instead;
  return instead ? instead : h;
}

bool has(const Link &l, const char *option) {
  for (auto &o : l.options)
    if (o == option) return true;
  return false;
}

}  // namespace

extern "C" {

int nvJitLinkCreate(Handle *h, uint32_t n, const char **options) {
  int r = REAL(int (*)(Handle *, uint32_t, const char **), "nvJitLinkCreate")(h, n, options);
  if (r) return r;
  std::lock_guard<std::mutex> hold(guard);
  Link &l = links[*h] = Link();
  for (uint32_t i = 0; i < n; i++) l.options.push_back(options[i]);
  return 0;
}
int nvJitLinkAddData(Handle h, int kind, const void *data, size_t n, const char *name) {
  int r = REAL(int (*)(Handle, int, const void *, size_t, const char *), "nvJitLinkAddData")(h, kind, data, n, name);
  std::lock_guard<std::mutex> hold(guard);
  if (!r) links[h].inputs.push_back({kind, string((const char *)data, n), name ? name : ""});
  return r;
}
int nvJitLinkAddFile(Handle h, int kind, const char *path) {
  return REAL(int (*)(Handle, int, const char *), "nvJitLinkAddFile")(h, kind, path);
}

int nvJitLinkComplete(Handle h) {
  void *caller = __builtin_return_address(0);
  Link l;
  {
    std::lock_guard<std::mutex> hold(guard);
    l = links[h];
  }
  bool bare = without_machine_code(l);
  int r = bare ? 0 : real<int (*)(Handle)>("nvJitLinkComplete", caller)(h);
  if (r || has(l, "-ptx")) return r;
  string ptx;
  bool intermediate = false;
  for (auto &i : l.inputs) {
    if (i.kind == PTX) ptx += i.data.c_str() + string("\n");
    intermediate |= i.kind == LTOIR;
  }
  if (intermediate) {
    std::vector<const char *> options;
    for (auto &o : l.options) options.push_back(o.c_str());
    options.push_back("-ptx");
    Handle again;
    int e = real<int (*)(Handle *, uint32_t, const char **)>("nvJitLinkCreate", caller)(&again, (uint32_t)options.size(), options.data());
    for (auto &i : l.inputs)
      if (!e && i.kind == LTOIR)
        e = real<int (*)(Handle, int, const void *, size_t, const char *)>("nvJitLinkAddData", caller)(again, i.kind, i.data.data(),
                                                                                                       i.data.size(), i.name.c_str());
    if (!e) e = real<int (*)(Handle)>("nvJitLinkComplete", caller)(again);
    size_t n = 0;
    if (!e) e = real<int (*)(Handle, size_t *)>("nvJitLinkGetLinkedPtxSize", caller)(again, &n);
    string text(n, 0);
    if (!e) e = real<int (*)(Handle, char *)>("nvJitLinkGetLinkedPtx", caller)(again, &text[0]);
    if (!e) ptx += text.c_str() + string("\n");
    else if (!bare) fprintf(stderr, "vgpu: nvJitLink gives no PTX of link-time code: error %d\n", e);
    if (bare) {
      std::lock_guard<std::mutex> hold(guard);
      links[h].instead = again;
      r = e;
    } else real<int (*)(Handle *)>("nvJitLinkDestroy", caller)(&again);
  }
  if (ptx.empty()) return r;
  uint64_t n = ptx.size();
  std::lock_guard<std::mutex> hold(guard);
  links[h].trailer = string("VGPU-PTX") + string((const char *)&n, 8) + ptx;
  return r;
}
int nvJitLinkDestroy(Handle *h) {
  Handle instead;
  {
    std::lock_guard<std::mutex> hold(guard);
    instead = links[*h].instead;
    links.erase(*h);
  }
  if (instead) REAL(int (*)(Handle *), "nvJitLinkDestroy")(&instead);
  return REAL(int (*)(Handle *), "nvJitLinkDestroy")(h);
}
int nvJitLinkGetLinkedCubinSize(Handle h, size_t *n) {
  bool bare = speaker(h) != h;
  int r = bare ? 0 : REAL(int (*)(Handle, size_t *), "nvJitLinkGetLinkedCubinSize")(h, n);
  std::lock_guard<std::mutex> hold(guard);
  if (!r) *n = (bare ? 0 : *n) + links[h].trailer.size();
  return r;
}
int nvJitLinkGetLinkedCubin(Handle h, void *out) {
  void *caller = __builtin_return_address(0);
  size_t n = 0;
  int r = 0;
  if (speaker(h) == h) {
    r = real<int (*)(Handle, size_t *)>("nvJitLinkGetLinkedCubinSize", caller)(h, &n);
    if (!r) r = real<int (*)(Handle, void *)>("nvJitLinkGetLinkedCubin", caller)(h, out);
  }
  std::lock_guard<std::mutex> hold(guard);
  if (!r) memcpy((char *)out + n, links[h].trailer.data(), links[h].trailer.size());
  return r;
}
#define FORWARD_SIZE(name) \
  int name(Handle h, size_t *n) { return REAL(int (*)(Handle, size_t *), #name)(speaker(h), n); }
#define FORWARD_TEXT(name) \
  int name(Handle h, char *s) { return REAL(int (*)(Handle, char *), #name)(speaker(h), s); }
FORWARD_SIZE(nvJitLinkGetErrorLogSize)
FORWARD_TEXT(nvJitLinkGetErrorLog)
FORWARD_SIZE(nvJitLinkGetInfoLogSize)
FORWARD_TEXT(nvJitLinkGetInfoLog)
FORWARD_SIZE(nvJitLinkGetLinkedPtxSize)
FORWARD_TEXT(nvJitLinkGetLinkedPtx)
FORWARD_SIZE(nvJitLinkGetLinkedLTOIRSize)
FORWARD_TEXT(nvJitLinkGetLinkedLTOIR)
int nvJitLinkVersion(unsigned *a, unsigned *b) { return REAL(int (*)(unsigned *, unsigned *), "nvJitLinkVersion")(a, b); }

}  // extern "C"
