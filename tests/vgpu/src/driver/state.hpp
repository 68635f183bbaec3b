// What the driver knows of a process: contexts, streams, events, captures and graphs. Its functions are those of cuda.h, in the files
// beside this one; all of them hold one lock.
#pragma once
#include <cuda.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine/engine.hpp"
#include "engine/order.hpp"

using std::string;
using vg::Kernel;

struct CUctx_st {
  unsigned flags;
  bool primary;
  uint64_t id;
};
struct Node {
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
  std::set<size_t> after;
  Kernel *kernel = nullptr;
  vg::Launch where{};
  std::vector<uint8_t> parameters;
  std::vector<void *> pointers;  // into parameters, for whoever asks
  uint64_t to = 0, from = 0, size = 0;
  uint32_t value = 0, width = 1;
  uint64_t pitch = 0, rows = 1, to_pitch = 0, from_pitch = 0;
  bool later = false;  // the host does not wait for it
  bool early = false;  // it may begin before the kernel before it has ended
  CUhostFn host = nullptr;
  void *data = nullptr;
  CUevent event = nullptr;
  CUgraph child = nullptr;
  CUgraph owner = nullptr;
  size_t index = 0;
};
struct CUgraph_st {
  std::vector<std::unique_ptr<Node>> nodes;
  std::map<CUuserObject, unsigned> objects;  // kept alive, and by how many references
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
  std::vector<int> branches;  // timelines of what runs beside the first
  order::Clock last;          // its launches follow one another
  std::vector<CUuserObject> objects;
};
struct Capture {
  CUgraph graph;
  CUstreamCaptureMode mode;
  uint64_t id;
  pid_t thread;
  CUstream origin;
  bool invalid = false;
  string why;
  std::set<CUstream> streams;
};
struct CUstream_st {
  unsigned flags = 0;
  int priority = 0;
  std::shared_ptr<Capture> capture;
  std::set<size_t> after;
  uint64_t id = 0;
  int timeline = -1;
  std::vector<CUgraphNode> listed;
  uint32_t chain = 0;  // of its last operation, as in work.hpp
};
struct CUevent_st {
  unsigned flags;
  bool recorded = false;
  struct timespec when{};
  std::shared_ptr<Capture> capture;
  std::set<size_t> after;
  order::Clock clock;
};
struct CUmod_st {
  std::unique_ptr<vg::Code> code;
};
struct CUlinkState_st {
  string ptx;
  std::vector<char> out;
};

namespace driver {

extern std::recursive_mutex guard;
extern bool started;
extern int stuck;  // the error that a context never recovers from
extern uint64_t next_id;
extern CUctx_st *primary;
extern int primary_uses;
extern thread_local std::vector<CUcontext> contexts;
extern thread_local CUstreamCaptureMode thread_mode;
extern std::set<CUstream> streams;
extern std::set<CUevent> events;
extern std::set<Kernel *> kernels;
extern std::set<CUmodule> modules;
extern std::vector<std::shared_ptr<Capture>> captures;
extern CUstream_st legacy, per_thread;  // the default streams

typedef std::lock_guard<std::recursive_mutex> Hold;
inline CUresult R(int e) { return (CUresult)e; }
inline pid_t thread_id() { return (pid_t)syscall(SYS_gettid); }

void trace(const char *name);
CUcontext context();     // the current one
CUresult failed(int e);  // keeps the error, where contexts keep errors
CUcontext primary_context();

inline CUstream resolve(CUstream s) {
  if (!s || s == CU_STREAM_LEGACY) return &legacy;
  if (s == CU_STREAM_PER_THREAD) return &per_thread;
  return s;
}
inline bool valid(CUstream s) { return s == &legacy || s == &per_thread || streams.count(s); }

}  // namespace driver
using namespace driver;

// How a function of the driver begins.
#define ENTER_QUIET  \
  Hold hold_(guard); \
  trace(__func__)
#define ENTER                                      \
  ENTER_QUIET;                                     \
  if (!started) return CUDA_ERROR_NOT_INITIALIZED; \
  if (stuck) return R(stuck)
#define NEED(p) \
  if (!(p)) return CUDA_ERROR_INVALID_VALUE
#define STREAM(s) \
  s = resolve(s); \
  if (!valid(s)) return CUDA_ERROR_INVALID_HANDLE
