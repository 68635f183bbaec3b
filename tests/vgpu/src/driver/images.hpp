// What a module is loaded from: PTX, a cubin, or a fat binary.
#pragma once
#include <map>
#include <string>

#include "engine/engine.hpp"

namespace driver {

struct Image {
  std::string ptx;
  std::map<std::string, vg::Resources> resources;
  std::string what;  // it is, where there is no PTX in it
};

void read_cubin(const uint8_t *b, Image &image);
Image read_image(const void *data);

}  // namespace driver
