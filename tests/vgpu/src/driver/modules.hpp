#pragma once
#include "state.hpp"

namespace driver {

CUresult load_module(CUmodule *out, const void *data, const char *name);

}  // namespace driver
