// What the lanes of a warp do together: they wait for one another, and the last one works it out for all.
#include <algorithm>

#include "block.hpp"
#include "clocks.hpp"
#include "matrices.hpp"

namespace vg {

// Whether the lanes that a waiting thread names are all there; then they have their results, and go on.
bool complete(Fiber *f) {
  Fiber *w = fibers + f->warp * 32;
  u32 lanes = std::min(32u, threads - f->warp * 32), there = 0;
  for (u32 i = 0; i < lanes; i++) {
    if (!(f->mask >> i & 1)) continue;
    if (w[i].state == GONE) continue;
    if (w[i].state != AT_WARP || w[i].line != f->line || w[i].mask != f->mask) return false;
    there |= 1u << i;
  }
  switch (f->op) {
    case 's':  // __syncwarp
      warp_epoch[f->warp]++;
      if (clocked) warp_met(f->warp, there);
      break;
    case 'U':
    case 'D':
    case 'B':
    case 'I':
      for (u32 i = 0; i < lanes; i++) {
        if (!(there >> i & 1)) continue;
        u32 b = w[i].sb & 31, c = w[i].sc & 31, segment = w[i].sc >> 8 & 31, most = (i & segment) | (c & ~segment & 31),
            least = i & segment;
        int j = 0;
        bool in = false;
        if (f->op == 'U') j = (int)i - (int)b, in = j >= (int)most;
        else if (f->op == 'D') j = i + b, in = j <= (int)most;
        else if (f->op == 'B') j = i ^ b, in = j <= (int)most;
        else j = least | (b & ~segment & 31), in = j <= (int)most;
        if (!in) j = i;
        w[i].pred = in;
        if (j >= (int)lanes || !(there >> j & 1)) {
          Fiber *self = current;
          current = &w[i];
          if (opt.synccheck)
            find("shuffle from a lane that is not there", f->line, "lane " + std::to_string(i) + " reads lane " + std::to_string(j), false);
          current = self;
          w[i].result = 0xffffffff;
        } else w[i].result = w[j].value;
      }
      break;
    case 'a':
    case 'o':
    case 'u':
    case 'b': {
      u32 bits = 0;
      for (u32 i = 0; i < lanes; i++)
        if (there >> i & 1 && w[i].value) bits |= 1u << i;
      for (u32 i = 0; i < lanes; i++)
        if (there >> i & 1)
          w[i].result = f->op == 'a' ? bits == there : f->op == 'o' ? bits != 0 : f->op == 'u' ? bits == there || !bits : bits;
      break;
    }
    case 'm':
    case 'M':
      for (u32 i = 0; i < lanes; i++) {
        if (!(there >> i & 1)) continue;
        u32 same = 0;
        for (u32 j = 0; j < lanes; j++)
          if (there >> j & 1 && w[j].wide == w[i].wide) same |= 1u << j;
        w[i].result = f->op == 'M' ? (same == there ? there : 0) : same;
        w[i].pred = same == there;
      }
      break;
    case 'e':
      for (u32 i = 0; i < lanes; i++)
        if (there >> i & 1) w[i].result = __builtin_ctz(there), w[i].pred = i == (u32)__builtin_ctz(there);
      break;
    default: {
      if (f->op >= 512) {
        collective(f, w, there);
        break;
      }
      int op = f->op - 256;
      bool any = false;
      u32 r = 0;
      for (u32 i = 0; i < lanes; i++) {
        if (!(there >> i & 1)) continue;
        u32 v = w[i].value;
        if (!any) r = v, any = true;
        else if (op == '+') r += v;
        else if (op == '&') r &= v;
        else if (op == '|') r |= v;
        else if (op == '^') r ^= v;
        else if (op == '<') r = (s32)v < (s32)r ? v : r;
        else if (op == '>') r = (s32)v > (s32)r ? v : r;
        else if (op == 'l') r = std::min(r, v);
        else r = std::max(r, v);
      }
      for (u32 i = 0; i < lanes; i++)
        if (there >> i & 1) w[i].result = r;
    }
  }
  for (u32 i = 0; i < lanes; i++)
    if (there >> i & 1) w[i].state = READY;
  return true;
}

u32 together(int op, u32 mask, u32 line) {
  Fiber *f = current;
  f->op = op, f->mask = mask, f->line = line;
  if (!(mask >> f->lane & 1)) {
    find("a lane that its own mask leaves out", line, "mask " + std::to_string(mask));
    die(719);
  }
  f->state = AT_WARP;
  if (!complete(f)) leave();
  return f->result;
}

extern "C" {

void vg_warp_sync(u32 mask, u32 line) { together('s', mask, line); }
u32 vg_shfl(int mode, u32 value, u32 b, u32 c, u32 mask, u8 *pred, u32 line) {
  Fiber *f = current;
  f->value = value, f->sb = b, f->sc = c;
  u32 r = together(mode - 32, mask, line);
  *pred = f->pred;
  return r;
}
u32 vg_vote(int mode, u32 pred, u32 mask, u32 line) {
  current->value = pred;
  return together(mode, mask, line);
}
u32 vg_match(int mode, u64 value, u32 mask, u8 *pred, u32 line) {
  Fiber *f = current;
  f->wide = value;
  u32 r = together(mode == 'a' ? 'M' : 'm', mask, line);
  *pred = f->pred;
  return r;
}
u32 vg_redux(int op, u32 value, u32 mask, u32 line) {
  current->value = value;
  return together(256 + op, mask, line);
}
u32 vg_elect(u32 mask, u8 *pred, u32 line) {
  Fiber *f = current;
  u32 r = together('e', mask, line);
  *pred = f->pred;
  return r;
}

}  // extern "C"

}  // namespace vg
