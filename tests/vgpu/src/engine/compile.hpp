// Translations, compiled into the cache.
#pragma once
#include <string>

#include "ptx/ptx.hpp"

namespace vg {

// The library of a module and the file of its PTX; false with an error where it does not compile.
bool compile(const ptx::Module &module, const std::string &text, std::string &library, std::string &path, std::string &error);

}  // namespace vg
