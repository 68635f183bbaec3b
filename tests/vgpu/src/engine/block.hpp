// The block that runs: its threads as fibers, its shared memory, and what has been found.
#pragma once
#include <string>

#include "code.hpp"
#include "launch.hpp"
#include "memory.hpp"
#include "options.hpp"
#include "order.hpp"
#include "shadow.hpp"

#pragma GCC visibility push(hidden)
namespace vg {
using std::string;

enum State { READY, AT_BARRIER, AT_WARP, POLLING, GONE };

struct Fiber : VgThread {
  void *sp;
  u64 low, high;  // its stack
  State state;
  u32 line, barrier, expected, mask, value, sb, sc, result;
  int op;
  u64 wide;
  u8 pred, waited;  // the latter: for the launches before this one, by griddepcontrol
  void *data;       // of an operation of the whole warp
};

struct Word {                        // of shared memory
  u32 wepoch, repoch, wwarp, rwarp;  // barriers passed in the block, and in the warp
  u16 wt, rt;
  u8 wmask, rmask, written;
  u32 block;  // that `written` is of
};

const u16 SEVERAL = 0xffff, SEVERAL_OF_WARP = 0x8000, STRONG = 0xfffe;  // in place of a thread; the last: no reader but strong ones
const uint32_t SHARED_MOST = 227 << 10;

extern Kernel *kernel;
extern const Launch *shape;
extern VgBlock block;
extern Fiber *fibers, *current;
extern u32 threads, gone;
extern void *scheduler;
extern bool broken;               // the launch is over: nothing of it runs any more
extern int outcome;               // a CUresult
extern u32 serial, first_serial;  // of the block that runs, of the first of the launch
extern u32 unfinished;            // as in Launch
extern u32 epoch;                 // of the block: how many barriers it has passed
extern u32 warp_epoch[32];
extern u8 *shared_memory;
extern Word *shared_words;
extern const u8 *parameters_now;
extern bool fenced;
extern bool any_waited;  // of the launch's threads, for the launches before
extern bool clocked;     // this launch keeps clocks of its threads (clocks.hpp)
extern u8 *in_flight;    // asynchronous copies that have still to write a word of shared memory
extern bool any_in_flight;
extern u64 progress;  // grows when something happens that somebody may wait for
const u64 SHARED_BASE = 0x0000600000000000ull;

// ---- fibers
extern "C" void vg_switch(void **save, void *to);
inline void leave() { vg_switch(&current->sp, scheduler); }  // until the scheduler comes back
[[noreturn]] void die(int error);                            // the launch, with a CUresult
void prepare_stacks(u32 n, u64 size);
void prepare_fiber(Fiber &f, void (*begin)());
void run_fiber(Fiber *f);

// ---- findings
extern uint64_t findings;
void find(const char *kind, u32 line, const string &what, bool counts = true);
bool find_on_host(const string &kind, const string &key, const string &what);  // prints it once; true where it is an error
string thread_name(u32 t);
string access_text(const char *what, u64 address, u32 n);
string shared_text(const char *what, u64 address, u32 n);

// ---- memory
u8 *outside(const char *what, u64 address, u32 n, u32 line);
void keep_reader(u64 word, u32 serial);  // a second one that nothing orders after the first
void note_shared_write(Word &s, u8 mask, u64 address, u32 n, u32 line);

// ---- threads with one another
u32 together(int op, u32 mask, u32 line);  // an operation of a warp; 512 and up: of tensor cores, with all lanes
bool complete(Fiber *f);
void forget_barriers();
bool open_barriers();
void warp_met(u32 warp, u32 there);

}  // namespace vg
#pragma GCC visibility pop
