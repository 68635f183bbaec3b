// What wgmma is doing in a register of a thread: nothing, or a group's number and how the register is used in it. By the PTX ISA nobody may
// touch the registers of a wgmma before its thread has waited for the group; that A's may be read all the same is taken for granted, since
// no harm can come of it. What happens to sums is said and is no error, because ptxas looks after them: where it can follow the program it
// waits by itself ("wgmma.mma_async instructions are serialized"). For A it has been seen not to.
#include "device/tensor.h"
#include "matrices.hpp"

namespace vg {

enum { A = 1, SUM, COPY };  // of a sum

static bool landed(u32 flight) { return flight >> 2 <= wgmma_done[current->index]; }
static string of(const char *name, const char *what, u32 flight) {
  bool committed = flight >> 2 <= wgmma_groups[current->index];
  return string(name) + what +
         (committed ? ", before a wgmma.wait_group for its group" : ", before wgmma.commit_group and wgmma.wait_group");
}

extern "C" {

u32 vg_wgmma_flight(char kind) { return (wgmma_groups[current->index] + 1) << 2 | (kind == 'a' ? A : SUM); }

void vg_wgmma_read(u32 *flight, const char *name, u32 line) {
  if (opt.synccheck && !landed(*flight) && (*flight & 3) != A)
    find("sums read too early", line, of(name, ", a sum of a wgmma, is read", *flight), false);
  if ((*flight & 3) != A || landed(*flight)) *flight = 0;
}

void vg_wgmma_written(u32 *flight, const char *name, u32 line) {
  u32 kind = *flight & 3;
  if (opt.synccheck && !landed(*flight) && kind != COPY)
    find(kind == A ? "A overwritten" : "sums overwritten", line,
         of(name, kind == A ? ", A of a wgmma, is written to" : ", a sum of a wgmma, is written to", *flight), kind == A);
  *flight = 0;
}

// A wgmma may add to sums that another one adds to, but not to what another one still reads as A.
void vg_wgmma_summed(u32 *flight, const char *name, u32 line) {
  if ((*flight & 3) == A) vg_wgmma_written(flight, name, line);
}

void vg_wgmma_copied(u32 *flight, u32 from, const char *name, u32 line) {
  bool sum = from && (from & 3) != A && !landed(from), own = *flight && !landed(*flight);
  if (own && (*flight & 3) == SUM && sum) return;  // passed on, and back
  if (own) vg_wgmma_written(flight, name, line);
  *flight = sum ? (from & ~3u) | COPY : 0;
}

}  // extern "C"

}  // namespace vg
