// Streams under capture: what may not be done meanwhile, and by whom.
#pragma once
#include "state.hpp"

namespace driver {

void invalidate(Capture &c, const char *why);
CUresult unsafe(const char *name);                // a call that may not be made while something is captured, unless the mode allows it
CUresult implicit(CUstream s, const char *name);  // work on the legacy stream, which would wait for a capture
CUresult begin_capture(CUstream s, CUgraph into, CUstreamCaptureMode mode);

}  // namespace driver

#define UNSAFE \
  if (CUresult r_ = unsafe(__func__)) return r_
