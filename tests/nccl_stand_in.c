// libnccl.so.2 for processes that have a virtual GPU each: what CuPy's bindings call, with sums through memory that the processes share.
//
// Device memory of the virtual GPU lies at its address in the process. A sum is a host function on the caller's stream, so that a recorded
// step holds it as it would hold NCCL's kernels; the ranks' numbers are added in the order of the ranks. Each call is noted in the file
// that NCCL_STAND_IN_LOG names, with the rank behind it.
#include <cuda.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, FLOAT32 = 7, FLOAT64 = 8, CHUNK = 1 << 20, LIMIT = 60 };

typedef struct {
  char name[128];
} Id;
typedef struct {
  atomic_int waiting, turn;
  char rooms[];  // CHUNK bytes for each rank
} Room;
typedef struct {
  int rank, size;
  Room *room;
  FILE *log;
} Comm;
typedef struct {
  Comm *comm;
  char *from, *to;
  size_t count;
  int kind;
} Sum;

static void meet(Comm *c) {  // ends the process where the others do not come
  int turn = c->room->turn;
  if (atomic_fetch_add(&c->room->waiting, 1) == c->size - 1) {
    c->room->waiting = 0;
    c->room->turn++;
    return;
  }
  struct timespec nap = {0, 100000};
  for (long naps = 0; c->room->turn == turn; naps++) {
    if (naps > LIMIT * 10000L) fprintf(stderr, "nccl stand-in: rank %d waits in vain\n", c->rank), _exit(3);
    nanosleep(&nap, NULL);
  }
}

static void sum(void *given) {
  Sum *s = given;
  Comm *c = s->comm;
  size_t width = s->kind == FLOAT64 ? 8 : 4, most = CHUNK / width;
  for (size_t first = 0; first < s->count; first += most) {
    size_t n = s->count - first < most ? s->count - first : most;
    memcpy(c->room->rooms + (size_t)c->rank * CHUNK, s->from + first * width, n * width);
    meet(c);
    char *out = s->to + first * width;
    memcpy(out, c->room->rooms, n * width);
    for (int rank = 1; rank < c->size; rank++) {
      char *other = c->room->rooms + (size_t)rank * CHUNK;
      for (size_t i = 0; i < n; i++) {
        if (s->kind == FLOAT64)
          ((double *)out)[i] += ((double *)other)[i];
        else
          ((float *)out)[i] += ((float *)other)[i];
      }
    }
    meet(c);
  }
}

int ncclGetVersion(int *version) {
  *version = 22707;
  return SUCCESS;
}
const char *ncclGetErrorString(int result) {
  return result == SUCCESS ? "no error" : result == SYSTEM_ERROR ? "system error" : "invalid argument";
}
int ncclGetUniqueId(Id *id) {
  static int made;
  memset(id, 0, sizeof *id);
  snprintf(id->name, sizeof id->name, "/nccl-stand-in-%d-%d", getpid(), made++);
  return SUCCESS;
}
int ncclCommInitRank(Comm **made, int size, Id id, int rank) {
  size_t bytes = sizeof(Room) + (size_t)size * CHUNK;
  int file = shm_open(id.name, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, bytes)) return SYSTEM_ERROR;
  Comm *c = calloc(1, sizeof *c);
  c->rank = rank, c->size = size;
  c->room = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (c->room == MAP_FAILED) return SYSTEM_ERROR;
  const char *log = getenv("NCCL_STAND_IN_LOG");
  char path[4096];
  if (log && snprintf(path, sizeof path, "%s%d", log, rank) < (int)sizeof path) c->log = fopen(path, "w");
  meet(c);
  if (rank == 0) shm_unlink(id.name);
  *made = c;
  return SUCCESS;
}
int ncclCommInitRankConfig(Comm **made, int size, Id id, int rank, void *config) { return ncclCommInitRank(made, size, id, rank); }
int ncclAllReduce(void *from, void *to, size_t count, int kind, int operation, Comm *c, CUstream stream) {
  if (operation != 0 || (kind != FLOAT32 && kind != FLOAT64)) return INVALID_ARGUMENT;
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  cuStreamIsCapturing(stream, &status);
  if (c->log) fprintf(c->log, "%zu %s\n", count, status ? "recorded" : "launched"), fflush(c->log);
  Sum *s = malloc(sizeof *s);  // kept: a graph may run it again
  *s = (Sum){c, from, to, count, kind};
  return cuLaunchHostFunc(stream, sum, s) ? SYSTEM_ERROR : SUCCESS;
}
int ncclCommCount(Comm *c, int *count) {
  *count = c->size;
  return SUCCESS;
}
int ncclCommUserRank(Comm *c, int *rank) {
  *rank = c->rank;
  return SUCCESS;
}
int ncclCommCuDevice(Comm *c, int *device) {
  *device = 0;
  return SUCCESS;
}
int ncclCommGetAsyncError(Comm *c, int *error) {
  *error = SUCCESS;
  return SUCCESS;
}
int ncclCommDestroy(Comm *c) { return SUCCESS; }
int ncclCommAbort(Comm *c) { return SUCCESS; }
// What CuPy's bindings are linked with, and nobody here calls.
#define UNUSED(name) \
  int name(void) { return INVALID_ARGUMENT; }
UNUSED(ncclAllGather)
UNUSED(ncclBcast)
UNUSED(ncclBroadcast)
UNUSED(ncclCommInitAll)
UNUSED(ncclCommSplit)
UNUSED(ncclRecv)
UNUSED(ncclReduce)
UNUSED(ncclReduceScatter)
UNUSED(ncclSend)
int ncclGroupStart(void) { return SUCCESS; }
int ncclGroupEnd(void) { return SUCCESS; }
