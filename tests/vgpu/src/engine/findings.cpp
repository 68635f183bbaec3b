// What is found is printed once for a place, and is the launch's error.
#include <map>

#include "block.hpp"
#include "source.hpp"
#include "stats.hpp"

namespace vg {

uint64_t findings, places_found;
static std::map<string, uint64_t> seen_findings;

string source_of(const std::vector<string> &lines, unsigned line) {
  for (unsigned i = std::min<unsigned>(line, (unsigned)lines.size()); i-- > 0;) {
    const string &s = lines[i];
    size_t at = s.find_first_not_of(" \t");
    if (at == string::npos) continue;
    if (s.compare(at, 6, ".entry") == 0 || s.compare(at, 8, ".visible") == 0 || s.compare(at, 5, ".func") == 0) return "";
    unsigned file, number;
    if (sscanf(s.c_str() + at, ".loc %u %u", &file, &number) != 2) continue;
    if (!number) return "";
    string key = ".file\t" + std::to_string(file) + " \"", other = ".file " + std::to_string(file) + " \"";
    for (auto &l : lines) {
      size_t f = l.find(key);
      if (f == string::npos) f = l.find(other);
      if (f == string::npos) continue;
      size_t a = l.find('"', f) + 1, b = l.find('"', a);
      string name = l.substr(a, b - a);
      size_t slash = name.rfind('/');
      return (slash == string::npos ? name : name.substr(slash + 1)) + ":" + std::to_string(number);
    }
    return "";
  }
  return "";
}

static string where(const Fiber *f) {
  char b[160];
  snprintf(b, sizeof b, "thread (%u,%u,%u) of block (%u,%u,%u)", f->tid[0], f->tid[1], f->tid[2], block.ctaid[0], block.ctaid[1],
           block.ctaid[2]);
  return b;
}

string thread_name(u32 t) {
  if (t == STRONG) return "a thread";
  if (t == SEVERAL) return "several threads";
  if (t & SEVERAL_OF_WARP) return "several threads of warp " + std::to_string(t & 0x7fff);
  return "thread " + std::to_string(t);
}

void find(const char *kind, u32 line, const string &what, bool counts) {
  counts |= opt.strict > 1;
  string key = string(kind) + kernel->function->name + std::to_string(line);
  uint64_t n = ++seen_findings[key];
  places_found += n == 1;
  if (counts) findings++;
  if (counts && opt.strict && !outcome) outcome = 719;  // CUDA_ERROR_LAUNCH_FAILED
  if (n == 1 && seen_findings.size() <= 20) {
    auto &lines = kernel->code->module.lines;
    string source = line && line <= lines.size() ? lines[line - 1] : "";
    size_t a = source.find_first_not_of(" \t");
    if (source.size() > 160) source = source.substr(0, 160) + "...";
    string from = source_of(lines, line);
    fprintf(report_file(), "vgpu: %s in %s,%s%s PTX line %u `%s`: %s; %s; grid (%u,%u,%u), %u threads a block; %s\n", kind,
            kernel->name.c_str(), from.empty() ? "" : " ", from.empty() ? "" : (from + ",").c_str(), line,
            a == string::npos ? "" : source.substr(a).c_str(), what.c_str(), where(current).c_str(), shape->grid[0], shape->grid[1],
            shape->grid[2], threads, kernel->code->path.c_str());
    fflush(report_file());
  } else if (n == 1 && seen_findings.size() == 21) fprintf(report_file(), "vgpu: more findings: counted, no longer printed\n");
}

string access_text(const char *what, u64 address, u32 n) {
  char b[128];
  snprintf(b, sizeof b, "%s of %u bytes at 0x%llx, ", what, n, (unsigned long long)address);
  return b;
}

string shared_text(const char *what, u64 address, u32 n) {
  char b[96];
  snprintf(b, sizeof b, "%s of %u bytes at %llu of shared memory", what, n, (unsigned long long)address);
  return b;
}

bool find_on_host(const string &kind, const string &key, const string &what) {
  std::lock_guard<std::recursive_mutex> hold(lock);
  uint64_t n = ++seen_findings[kind + key];
  places_found += n == 1;
  findings++;
  if (n == 1 && seen_findings.size() <= 20) fprintf(report_file(), "vgpu: %s: %s\n", kind.c_str(), what.c_str()), fflush(report_file());
  else if (n == 1 && seen_findings.size() == 21) fprintf(report_file(), "vgpu: more findings: counted, no longer printed\n");
  return opt.strict > 0;
}

bool any_findings() { return !seen_findings.empty(); }

void forget_findings() {
  std::lock_guard<std::recursive_mutex> hold(lock);
  seen_findings.clear();  // nor is there a count of them at the end
}

// For python/vgpu.py
extern "C" uint64_t vgpu_findings() { return findings; }

}  // namespace vg
