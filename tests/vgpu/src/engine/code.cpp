#include "code.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <set>

#include "compile.hpp"
#include "memory.hpp"
#include "options.hpp"
#include "shadow.hpp"

namespace vg {

using std::string;

string demangle(const string &name) {
  int status = 0;
  char *d = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  string s = d ? d : name;
  free(d);
  // Numba's: module::function[abi:...](types): what comes before the first bracket is what a person calls it
  size_t cut = s.find('[');
  if (cut != string::npos) s = s.substr(0, cut);
  if (s.size() > 160) s = s.substr(0, 160) + "...";
  return s;
}

Code::~Code() {
  for (auto &g : globals) release(g.second);
  if (library) dlclose(library);
}

uint32_t Kernel::max_threads() const {
  uint32_t n = function->max_threads ? function->max_threads : 1024;
  if (resources.registers) {
    uint32_t per_warp = (resources.registers * 32 + 255) / 256 * 256, warps = 65536 / 4 / per_warp * 4;
    n = std::min(n, warps * 32);
  }
  return n;
}

std::unique_ptr<Code> load(const string &text, string &error) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  auto code = std::make_unique<Code>();
  try {
    code->module = ptx::translate(text);
  } catch (ptx::Error &e) {
    error = e.what;
    return nullptr;
  }
  ptx::Module &m = code->module;
  string so;
  if (!compile(m, text, so, code->path, error)) return nullptr;
  // A library that is loaded twice is one: but each module has variables of its own, so each loads a copy under another name.
  static std::set<string> loaded;
  static int copies = 0;
  string path = so;
  if (!loaded.insert(so).second) {
    path = so + ".copy." + std::to_string(getpid()) + "." + std::to_string(copies++);
    std::ifstream from(so, std::ios::binary);
    std::ofstream to(path, std::ios::binary);
    to << from.rdbuf();
  }
  code->library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (path != so) unlink(path.c_str());
  if (!code->library) {
    error = dlerror();
    return nullptr;
  }
  code->symbols = (uint64_t *)dlsym(code->library, "VGSYM");
  code->shareds = (uint32_t *)dlsym(code->library, "VGSHARED");

  std::map<string, const ptx::Var *> vars;
  for (auto &v : m.vars) {
    vars[v.name] = &v;
    if (v.space == 's') continue;
    uint64_t a = allocate(std::max<uint64_t>(v.size, 1), MODULE, v.name.size() > 60 ? v.name.substr(0, 60) : v.name);
    code->globals[v.name] = a;
    code->symbols[v.index] = a;
    if (!v.init.empty()) memcpy((void *)a, v.init.data(), v.init.size());
  }
  for (auto &v : m.vars)
    for (auto &r : v.relocs) {
      auto to = code->globals.find(r.symbol);
      if (to == code->globals.end()) {
        error = "an initializer names " + r.symbol;
        return nullptr;
      }
      uint64_t a = to->second + r.addend;
      memcpy((void *)(code->globals[v.name] + r.offset), &a, 8);
    }
  std::map<string, const ptx::Function *> functions;
  for (auto &f : m.functions) functions[f.name] = &f;
  for (auto &f : m.functions) {
    if (!f.entry || !f.defined) continue;
    auto k = std::make_unique<Kernel>();
    k->code = code.get();
    k->function = &f;
    k->name = demangle(f.name);
    k->entry = (void (*)(VgThread *, const u8 *))dlsym(code->library, ("ENTRY_" + ptx::c_name(f.name)).c_str());
    std::set<string> seen{f.name};
    std::deque<string> todo{f.name};
    std::vector<const ptx::Var *> statics, externs;
    while (!todo.empty()) {
      string n = todo.front();
      todo.pop_front();
      auto fn = functions.find(n);
      if (fn == functions.end()) continue;
      for (auto &u : fn->second->uses) {
        if (!seen.insert(u).second) continue;
        todo.push_back(u);
        auto v = vars.find(u);
        if (v != vars.end() && v->second->space == 'c') k->constant_size += (uint32_t)v->second->size;
        if (v != vars.end() && v->second->space == 's') (v->second->external ? externs : statics).push_back(v->second);
      }
    }
    uint32_t offset = 0;
    for (auto v : statics) {
      offset = (offset + v->align - 1) / v->align * v->align;
      k->shared_layout.emplace_back(v->index, offset);
      offset += v->size;
    }
    k->static_shared = offset;
    for (auto v : externs)
      k->shared_layout.emplace_back(v->index, (offset + std::max(v->align, 16u) - 1) / std::max(v->align, 16u) * std::max(v->align, 16u));
    code->kernels[f.name] = std::move(k);
  }
  return code;
}

}  // namespace vg
