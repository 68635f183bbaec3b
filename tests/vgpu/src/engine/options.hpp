// What the environment asks for, and how this instrument speaks.
#pragma once
#include <stdio.h>

#include <cstdint>
#include <string>

namespace vg {

struct Options {
  bool memcheck, racecheck, initcheck, synccheck, streamcheck, sticky, log, async, stats;
  int strict;               // 0: findings are printed; 1: and are errors; 2: those within a warp too
  int order;                // of the blocks: 0 forward, 1 backward, n > 1 shuffled with that seed
  uint64_t memory, blocks;  // the most that a launch runs: of one with more, only the first and the last
  std::string without;      // a barrier, as "file:line" of the source, that nobody waits at: a planted fault
  std::string cache, compiler, optimize, march, report;
};
extern Options opt __attribute__((visibility("hidden")));
inline const Options &options() { return opt; }

FILE *report_file();  // where findings go
void log(const char *format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace vg
