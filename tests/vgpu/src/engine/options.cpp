#include "options.hpp"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <map>

namespace vg {

using std::string;

static bool flag(const char *name, bool otherwise) {
  const char *v = getenv(name);
  return v && *v ? strcmp(v, "0") != 0 : otherwise;
}
static string text(const char *name, const string &otherwise) {
  const char *v = getenv(name);
  return v && *v ? v : otherwise;
}

static Options from_environment() {
  Options x;
  x.memcheck = flag("VGPU_MEMCHECK", true);
  x.racecheck = flag("VGPU_RACECHECK", true);
  x.initcheck = flag("VGPU_INITCHECK", true);
  x.synccheck = flag("VGPU_SYNCCHECK", true);
  x.streamcheck = flag("VGPU_STREAMCHECK", true);
  x.async = flag("VGPU_ASYNC", false);
  x.stats = flag("VGPU_STATS", false);
  x.strict = atoi(text("VGPU_STRICT", "1").c_str());
  x.sticky = flag("VGPU_STICKY", true);
  x.log = flag("VGPU_LOG", false);
  x.order = atoi(text("VGPU_ORDER", "0").c_str());
  x.memory = strtoull(text("VGPU_MEMORY", "8192").c_str(), nullptr, 10) << 20;
  x.blocks = strtoull(text("VGPU_BLOCKS", "0").c_str(), nullptr, 10);
  x.without = text("VGPU_WITHOUT", "");
  x.cache = text("VGPU_CACHE", text("TMPDIR", "/tmp") + "/vgpu-cache-" + std::to_string(getuid()));
  x.compiler = text("VGPU_CC", "gcc");
  x.optimize = text("VGPU_OPT", "-Og");
  x.march = text("VGPU_MARCH", "native");
  x.report = text("VGPU_REPORT", "");
  return x;
}
Options opt = from_environment();

// What can be another in the middle of a process: everything that is asked anew at each access or launch.
static bool change(const string &name, const string &value) {
  const std::map<string, bool *> flags = {{"MEMCHECK", &opt.memcheck},   {"RACECHECK", &opt.racecheck},     {"INITCHECK", &opt.initcheck},
                                          {"SYNCCHECK", &opt.synccheck}, {"STREAMCHECK", &opt.streamcheck}, {"ASYNC", &opt.async},
                                          {"STATS", &opt.stats},         {"STICKY", &opt.sticky},           {"LOG", &opt.log}};
  const std::map<string, int *> numbers = {{"STRICT", &opt.strict}, {"ORDER", &opt.order}};
  if (flags.count(name)) *flags.at(name) = value != "0" && !value.empty();
  else if (numbers.count(name)) *numbers.at(name) = atoi(value.c_str());
  else return false;
  return true;
}

FILE *report_file() {
  static FILE *f = options().report.empty() ? stderr : fopen(options().report.c_str(), "a");
  return f ? f : stderr;
}

void log(const char *format, ...) {
  if (!options().log) return;
  va_list a;
  va_start(a, format);
  fputs("vgpu: ", stderr);
  vfprintf(stderr, format, a);
  fputc('\n', stderr);
  va_end(a);
}

// For python/vgpu.py
extern "C" int vgpu_set(const char *name, const char *value) { return !change(name, value); }

}  // namespace vg
