// Finds the PTX in what a module is loaded from, and the registers and memory that ptxas gave its kernels.
#include "images.hpp"

#include <string.h>

#include <algorithm>

namespace driver {
using std::string;

// After a cubin, or alone where no cubin was made: this, the length in 8 bytes, and the PTX
static const char TRAILER[] = "VGPU-PTX";

static bool read_trailer(const uint8_t *b, Image &image) {
  uint64_t n;
  if (memcmp(b, TRAILER, 8)) return false;
  memcpy(&n, b + 8, 8);
  image.ptx.assign((const char *)b + 16, n);
  return true;
}

void read_cubin(const uint8_t *b, Image &image) {
  auto u16_at = [&](uint64_t o) {
    uint16_t v;
    memcpy(&v, b + o, 2);
    return v;
  };
  auto u32_at = [&](uint64_t o) {
    uint32_t v;
    memcpy(&v, b + o, 4);
    return v;
  };
  auto u64_at = [&](uint64_t o) {
    uint64_t v;
    memcpy(&v, b + o, 8);
    return v;
  };
  uint64_t phoff = u64_at(32), shoff = u64_at(40), end = 64;
  unsigned phsize = u16_at(54), phnum = u16_at(56), shsize = u16_at(58), shnum = u16_at(60), shstr = u16_at(62);
  end = std::max({end, phoff + (uint64_t)phsize * phnum, shoff + (uint64_t)shsize * shnum});
  uint64_t names = u64_at(shoff + shstr * shsize + 24), symtab = 0, strtab = 0;
  for (unsigned i = 0; i < shnum; i++) {
    uint64_t h = shoff + (uint64_t)i * shsize;
    if (u32_at(h + 4) != 8) end = std::max(end, u64_at(h + 24) + u64_at(h + 32));
    const char *name = (const char *)b + names + u32_at(h);
    if (!strncmp(name, ".text.", 6)) image.resources[name + 6];
    if (u32_at(h + 4) == 2) symtab = u64_at(h + 24), strtab = u64_at(shoff + (uint64_t)u32_at(h + 40) * shsize + 24);
  }
  for (unsigned i = 0; i < shnum; i++) {
    uint64_t h = shoff + (uint64_t)i * shsize;
    const char *name = (const char *)b + names + u32_at(h);
    if (!strncmp(name, ".nv.shared.", 11) && strncmp(name, ".nv.shared.reserved", 19))
      image.resources[name + 11].shared = (int)u64_at(h + 32);
    if (!strcmp(name, ".nv.info") && symtab) {
      uint64_t o = u64_at(h + 24), stop = o + u64_at(h + 32);
      while (o + 4 <= stop) {
        unsigned format = b[o], attribute = b[o + 1], size = format == 4 ? u16_at(o + 2) : 0;
        if (format == 4 && size == 8 && (attribute == 0x11 || attribute == 0x2f)) {  // the frame's size; the number of registers
          const char *symbol = (const char *)b + strtab + u32_at(symtab + 24ull * u32_at(o + 4));
          auto k = image.resources.find(symbol);
          if (k != image.resources.end()) (attribute == 0x2f ? k->second.registers : k->second.local) = (int)u32_at(o + 8);
        }
        o += 4 + size;
      }
    }
  }
  for (uint64_t o = end; o < end + 16; o++)
    if (read_trailer(b + o, image)) return;
  image.what = "machine code with no PTX";
}

static void read_fatbin(const uint8_t *b, Image &image) {
  uint16_t header;
  uint64_t size;
  memcpy(&header, b + 6, 2);
  memcpy(&size, b + 8, 8);
  const uint8_t *p = b + header, *stop = p + size;
  uint32_t best = 0;
  image.what = "a fat binary with no PTX that can be read";
  while (p < stop) {
    uint16_t kind;
    uint32_t head, packed, sm;
    uint64_t payload, flags;
    memcpy(&kind, p, 2);
    memcpy(&head, p + 4, 4);
    memcpy(&payload, p + 8, 8);
    memcpy(&packed, p + 16, 4);
    memcpy(&sm, p + 28, 4);
    memcpy(&flags, p + 40, 8);
    if (kind == 1 && sm <= 90 && sm >= best) {
      if (flags & 0xa000) image.what = "a fat binary with compressed PTX";
      else image.ptx = string((const char *)p + head, strnlen((const char *)p + head, payload)), best = sm;
    }
    p += head + payload;
  }
}

Image read_image(const void *data) {
  Image image;
  const uint8_t *b = (const uint8_t *)data;
  uint32_t magic;
  memcpy(&magic, b, 4);
  if (magic == 0x466243b1) {
    const uint8_t *inner;
    memcpy(&inner, b + 8, 8);
    read_fatbin(inner, image);
  } else if (magic == 0xba55ed50) read_fatbin(b, image);
  else if (!memcmp(b, "\177ELF", 4)) read_cubin(b, image);
  else if (memcmp(b, TRAILER, 4) || !read_trailer(b, image)) image.ptx = (const char *)b;
  return image;
}

}  // namespace driver
