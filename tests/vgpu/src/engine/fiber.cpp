// The threads of a block are fibers on one host thread: each has a stack of its own, and runs until it waits.
#include <string.h>
#include <sys/mman.h>

#include "block.hpp"

namespace vg {

Kernel *kernel;
const Launch *shape;
VgBlock block;
Fiber *fibers, *current;
u32 threads, gone;
void *scheduler;
bool broken;
int outcome;
u32 serial = 1, first_serial = 1, unfinished = 0, epoch = 1, warp_epoch[32];
u8 *shared_memory, *in_flight;
Word *shared_words;
const u8 *parameters_now;
bool fenced, any_waited, clocked, any_in_flight;
u64 progress;

// Keeps what a function may not change on this stack, and goes on with the other one.
#if defined(__x86_64__)
asm(R"(
.text
.globl vg_switch
.hidden vg_switch
.type vg_switch, @function
vg_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl vg_switch
.hidden vg_switch
.type vg_switch, %function
vg_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#else
#error "fibers are switched by a few lines of assembly, which this processor has none of"
#endif

[[noreturn]] void die(int error) {
  broken = true;
  outcome = error;
  for (;;) leave();
}

static u8 *stacks;
static u64 stack_size;

void prepare_stacks(u32 n, u64 size) {
  size = (size + 65535) / 65536 * 65536;
  static u32 have = 0;
  if (n <= have && size <= stack_size) return;
  if (stacks) munmap(stacks, have * stack_size);
  have = std::max(have, n), stack_size = std::max(size, stack_size);
  stacks = (u8 *)reserve(have * stack_size);
}

void prepare_fiber(Fiber &f, void (*begin)()) {
  f.low = (u64)(stacks + f.index * stack_size), f.high = f.low + stack_size;
  u64 *top = (u64 *)((f.high - 64 - (f.index % 32) * 192) & ~15ull);  // not all at the same place of a page
#if defined(__x86_64__)
  *--top = 0;  // where the first function would return to
  *--top = (u64)begin;
  for (int k = 0; k < 6; k++) *--top = 0;
#else
  top -= 20;
  memset(top, 0, 160);
  top[11] = (u64)begin;  // the link register
#endif
  f.sp = top;
}

void run_fiber(Fiber *f) {
  current = f;
  vg_switch(&scheduler, f->sp);
}

}  // namespace vg
