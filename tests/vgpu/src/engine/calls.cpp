// What else a kernel can ask for: to end, to print, memory, the time.
#include <stdio.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "block.hpp"

namespace vg {

extern "C" {

void vg_fence(u32) { fenced = true; }
void vg_yield(void) {
  current->state = POLLING;
  leave();
}

void vg_grid_wait(void) { current->waited = any_waited = true; }

void vg_exit(void) {
  current->state = GONE;
  gone++;
  progress++;
  for (;;) leave();
}
void vg_trap(u32 line) {
  find("trap", line, "the kernel ends itself");
  die(719);
}
void vg_unsupported(const char *what, u32 line) {
  find("NOT SUPPORTED by this instrument", line, what);
  die(719);
}
}  // extern "C"

static string device_string(u64 a) {
  string s;
  while (in_arena(a) && *(char *)a && s.size() < 4096) s += *(char *)a++;
  return s;
}
extern "C" {

void vg_assertfail(u64 message, u64 file, u32 source_line, u64 function, u32 line) {
  find("assertion failed", line,
       device_string(message) + " at " + device_string(file) + ":" + std::to_string(source_line) + " in " + device_string(function));
  die(710);
}
u32 vg_vprintf(u64 format, u64 arguments) {
  string f = device_string(format), out;
  const u8 *a = (const u8 *)arguments;
  size_t at = 0;
  u32 count = 0;
  for (size_t i = 0; i < f.size(); i++) {
    if (f[i] != '%') {
      out += f[i];
      continue;
    }
    if (f[i + 1] == '%') {
      out += '%', i++;
      continue;
    }
    size_t end = f.find_first_of("diouxXeEfFgGaAcsp", i);
    if (end == string::npos) break;
    string spec = f.substr(i, end - i + 1);
    char k = f[end], b[4096];
    bool wide = spec.find("l") != string::npos || k == 'p' || k == 's' || strchr("eEfFgGaA", k);
    if (wide) at = (at + 7) & ~(size_t)7;
    if (k == 's') snprintf(b, sizeof b, spec.c_str(), device_string(*(const u64 *)(a + at)).c_str());
    else if (strchr("eEfFgGaA", k)) snprintf(b, sizeof b, spec.c_str(), *(const double *)(a + at));
    else if (wide) snprintf(b, sizeof b, spec.c_str(), *(const u64 *)(a + at));
    else snprintf(b, sizeof b, spec.c_str(), *(const u32 *)(a + at));
    out += b;
    at += wide ? 8 : 4;
    i = end;
    count++;
  }
  fwrite(out.data(), 1, out.size(), stdout);
  fflush(stdout);
  return count;
}
u64 vg_malloc(u64 size) { return allocate(size, DEVICE, "by the kernel"); }
void vg_free(u64 address) {
  if (address) release(address);
}
u64 vg_clock(void) {
#if defined(__x86_64__)
  return __rdtsc();
#else
  return vg_timer();
#endif
}
u64 vg_timer(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

}  // extern "C"

}  // namespace vg
