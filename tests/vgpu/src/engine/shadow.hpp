// The shadow of device memory, word by word: what is allocated, what is written, and who touched it last.
#pragma once
#include <mutex>

#include "device/device.h"
#include "memory.hpp"

#pragma GCC visibility push(hidden)
namespace vg {

#define UNLIKELY_(x) __builtin_expect(!!(x), 0)

extern uint64_t arena, arena_size;  // the address of the first byte, and how many
extern u8 *marks;                   // a byte per word: the upper half says which of its bytes are allocated, the lower which are written
struct Tag {  // who touched a word: blocks by number (the upper bit: atomically; by several), threads, barriers passed
  u32 w, r;
  u16 wt, we, rt, re;
};
const u32 ATOMICALLY = 0x80000000u;  // of a tag's writer; of its reader: several blocks
extern Tag *tags;
extern u32 *others;  // of a word: a second operation that reads it, with no order between the two
extern bool any_others;
extern std::recursive_mutex lock;  // of the whole engine

void prepare_memory();
void *reserve(uint64_t size);  // address space; memory where it is touched
void forget_tags();            // all of them

}  // namespace vg
#pragma GCC visibility pop
