#pragma once
#include <string>
#include <vector>

namespace vg {

// The line of the source that a line of PTX comes from, where there is line information: "file:line", or "".
std::string source_of(const std::vector<std::string> &lines, unsigned line);

}  // namespace vg
