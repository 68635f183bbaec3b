// Launches, block by block.
#pragma once
#include "code.hpp"

namespace vg {

struct Launch {
  uint32_t grid[3], block[3], dynamic_shared;
  uint32_t unfinished = 0;  // what has this serial number or a later one may still run when the launch begins; 0: nothing does
};
int launch(Kernel &kernel, const Launch &where, const u8 *parameters);  // a CUresult

uint32_t next_serial();                                    // of the next block, or other operation
bool touch(uint64_t address, uint64_t size, bool writes);  // by an operation of the host's, for the order between streams; false: a finding
void forget_findings();                                    // so that they are printed again
void restart_serials();                                    // where the numbers run out

}  // namespace vg
