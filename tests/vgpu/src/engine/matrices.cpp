// By the PTX ISA: which lane, register and part of it holds which element. Products are exact, and sums in float in the order of k.
#include "matrices.hpp"

#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "clocks.hpp"
#include "copies.hpp"
#include "device/tensor.h"

namespace vg {

#if defined(__aarch64__)
typedef __fp16 Half;  // g++ 12 has the other name for C alone there
#else
typedef _Float16 Half;
#endif

u32 wgmma_groups[1024], wgmma_done[1024];
void begin_block_matrices() {
  memset(wgmma_groups, 0, sizeof wgmma_groups);
  memset(wgmma_done, 0, sizeof wgmma_done);
}

enum { MMA = 512, WGMMA, LDMATRIX, STMATRIX, MOVMATRIX };
struct MmaData {
  int k, a_type, b_type, d_type;
  const u32 *a, *b, *c;
  u32 *d;
};
struct WgmmaData {
  int n, type, d_type;
  u32 *d;
  const u32 *a;
  u64 a_at, b_at;
  u32 scale_d;
  int sign_a, sign_b, trans_a, trans_b;
};
struct MatrixData {
  u32 *r;
  int count, trans;
  u32 at;
};

static inline float float_of(u32 b) {
  float f;
  memcpy(&f, &b, 4);
  return f;
}
static inline u32 bits_of(float f) {
  u32 b;
  memcpy(&b, &f, 4);
  return b;
}
static inline float half_of(u16 b) {
  Half h;
  memcpy(&h, &b, 2);
  return (float)h;
}
static inline u16 half_bits(float f) {
  Half h = (Half)f;
  u16 b;
  memcpy(&b, &h, 2);
  return b;
}

// Element i of a register that holds several, as a number.
static inline float element(int type, u32 reg, int i) {
  switch (type) {
    case 't': return float_of(reg & 0xffffe000u);  // the chip looks at no more of a TF32 than this
    case 'h': return half_of((u16)(reg >> 16 * i));
    case 'b': return float_of((reg >> 16 * i) << 16);
    case 's': return (s8)(reg >> 8 * i);
    default: return (u8)(reg >> 8 * i);
  }
}
static int per_register(int type) { return type == 't' ? 1 : type == 'h' || type == 'b' ? 2 : 4; }

// A (16 x k) and B (k x 8, by columns) of a warp: which lane, register and part holds what.
static void gather_a(float *a, int k, int type, const u32 *const *regs) {
  int p = per_register(type), half = k / 2, both = k / p == 8 ? 2 : 1;  // registers along k
  for (int lane = 0; lane < 32; lane++)
    for (int r = 0; r < 2 * both; r++)
      for (int i = 0; i < p; i++) a[(lane / 4 + r % 2 * 8) * k + r / 2 * half + lane % 4 * p + i] = element(type, regs[lane][r], i);
}
static void gather_b(float *b, int k, int type, const u32 *const *regs) {
  int p = per_register(type), both = k / p == 8 ? 2 : 1, half = k / 2;
  for (int lane = 0; lane < 32; lane++)
    for (int r = 0; r < both; r++)
      for (int i = 0; i < p; i++) b[(r * half + lane % 4 * p + i) * 8 + lane / 4] = element(type, regs[lane][r], i);
}

// d (rows x n) += a (rows x k) * b (k x n), products exact, sums in float in the order of k.
__attribute__((optimize("O3"), noinline)) static void multiply(float *__restrict d, const float *__restrict a, const float *__restrict b,
                                                               int rows, int k, int n) {
  for (int r = 0; r < rows; r++)
    for (int q = 0; q < k; q++) {
      float x = a[r * k + q];
      for (int j = 0; j < n; j++) d[r * n + j] = __builtin_fmaf(x, b[q * n + j], d[r * n + j]);
    }
}

static void do_mma(Fiber *w) {
  MmaData *m[32];
  const u32 *a[32], *b[32];
  for (int i = 0; i < 32; i++) m[i] = (MmaData *)w[i].data, a[i] = m[i]->a, b[i] = m[i]->b;
  int k = m[0]->k, kind = m[0]->d_type;
  float x[16 * 64], y[64 * 8], d[16 * 8];
  gather_a(x, k, m[0]->a_type, a), gather_b(y, k, m[0]->b_type, b);
  if (kind == 'i') {
    s32 sums[16 * 8];
    for (int i = 0; i < 32; i++)
      for (int r = 0; r < 4; r++) sums[(i / 4 + r / 2 * 8) * 8 + i % 4 * 2 + r % 2] = (s32)m[i]->c[r];
    for (int r = 0; r < 16; r++)
      for (int j = 0; j < 8; j++)
        for (int q = 0; q < k; q++) sums[r * 8 + j] = (s32)((u32)sums[r * 8 + j] + (u32)((s32)x[r * k + q] * (s32)y[q * 8 + j]));
    for (int i = 0; i < 32; i++)
      for (int r = 0; r < 4; r++) m[i]->d[r] = (u32)sums[(i / 4 + r / 2 * 8) * 8 + i % 4 * 2 + r % 2];
    return;
  }
  for (int i = 0; i < 32; i++)
    for (int r = 0; r < 4; r++)
      d[(i / 4 + r / 2 * 8) * 8 + i % 4 * 2 + r % 2] = kind == 'f' ? float_of(m[i]->c[r]) : half_of((u16)(m[i]->c[r / 2] >> 16 * (r % 2)));
  multiply(d, x, y, 16, k, 8);
  for (int i = 0; i < 32; i++)
    for (int r = 0; r < 4; r++) {
      float v = d[(i / 4 + r / 2 * 8) * 8 + i % 4 * 2 + r % 2];
      if (kind == 'f') m[i]->d[r] = bits_of(v);
      else if (r % 2 == 0) m[i]->d[r / 2] = half_bits(v);
      else m[i]->d[r / 2] |= (u32)half_bits(v) << 16;
    }
}

// A matrix in shared memory by its descriptor: the address of 16 bytes, `row` along M or N and `k16` along K, in units that the layout has.
struct Descriptor {
  u32 start, leading, stride;
  int swizzle;  // bytes: 0, 32, 64, 128
  explicit Descriptor(u64 d) {
    start = (d & 0x3fff) << 4, leading = (d >> 16 & 0x3fff) << 4, stride = (d >> 32 & 0x3fff) << 4;
    static const int widths[] = {0, 128, 64, 32};
    swizzle = widths[d >> 62];
  }
  u32 swizzled(u32 a) const { return swizzle ? a ^ ((a >> 7 & (swizzle / 16 - 1)) << 4) : a; }
  // by rows of K: 16 bytes k16 of a row
  u32 along_k(u32 row, u32 k16) const {
    u32 a = swizzle ? row % 8 * swizzle + row / 8 * stride + k16 * 16 : row % 8 * 16 + row / 8 * stride + k16 * leading;
    return swizzled(start + a);
  }
  // by rows of M or N: 16 bytes m16 of depth k
  u32 along_m(u32 m16, u32 k) const {
    u32 per = swizzle / 16,
        a = swizzle ? m16 % per * 16 + m16 / per * leading + k % 8 * swizzle + k / 8 * stride : m16 * stride + k % 8 * 16 + k / 8 * leading;
    return swizzled(start + a);
  }
};

static void gather_shared(float *out, bool by_columns, int rows, int k, int type, const Descriptor &d, int first, bool trans, u32 line) {
  int size = type == 't' ? 4 : 2, per = 16 / size;
  u32 t = current->index, agent = 1024 + BULK + t / 128, time = wgmma_groups[t] + 1;
  int outer = trans ? rows / per : rows, inner = trans ? k : k / per;
  for (int i = 0; i < outer; i++)
    for (int j = 0; j < inner; j++) {
      u32 at = trans ? d.along_m(first / per + i, j) : d.along_k(first + i, j);
      if (UNLIKELY_(at + 16 > block.shared_size)) shared_range("a wgmma", at, 16, 16, line);
      for (u32 w = at >> 2; w < (at >> 2) + 4; w++) {
        Word &s = shared_words[w];
        if (UNLIKELY_(any_in_flight && in_flight[w]) && opt.racecheck)
          find("race in shared memory", line, shared_text("a wgmma's read", at, 16) + ", that an asynchronous copy is still writing");
        if (opt.initcheck && UNLIKELY_(s.block != serial || s.written != 15))
          find("uninitialized read", line, shared_text("a wgmma's read", at, 16));
        if (clocked && opt.racecheck) { clocked_read(w, 15, {agent, time, clock_of(t), proxied_of(t), "a wgmma's read", at, 16, line}); }
      }
      for (int e = 0; e < per; e++) {
        u32 reg;
        u16 h;
        float v;
        if (size == 4) memcpy(&reg, shared_memory + at + 4 * e, 4), v = element('t', reg, 0);
        else memcpy(&h, shared_memory + at + 2 * e, 2), v = element(type, h, 0);
        int r = trans ? i * per + e : i, q = trans ? j : j * per + e;
        out[by_columns ? q * rows + r : r * k + q] = v;
      }
    }
}

static void do_wgmma(Fiber *w, u32 line) {
  static float a[16 * 16], b[16 * 256], d[16 * 256];
  WgmmaData *m[32];
  for (int i = 0; i < 32; i++) m[i] = (WgmmaData *)w[i].data;
  WgmmaData &x = *m[0];
  int n = x.n, k = x.type == 't' ? 8 : 16;
  Fiber *self = current;
  current = w;
  if (x.a) {
    const u32 *regs[32];
    for (int i = 0; i < 32; i++) regs[i] = m[i]->a;
    gather_a(a, k, x.type, regs);
  } else gather_shared(a, false, 16, k, x.type, Descriptor(x.a_at), (w->warp % 4) * 16, x.trans_a, line);
  gather_shared(b, true, n, k, x.type, Descriptor(x.b_at), 0, x.trans_b, line);
  current = self;
  if (x.sign_a * x.sign_b < 0)
    for (int i = 0; i < 16 * k; i++) a[i] = -a[i];
  for (int i = 0; i < 32; i++)
    for (int j = 0; j < n / 2; j++) {
      float v = 0;
      if (x.scale_d) v = x.d_type == 'f' ? float_of(m[i]->d[j]) : half_of((u16)(m[i]->d[j / 2] >> 16 * (j % 2)));
      d[(i / 4 + j / 2 % 2 * 8) * n + j / 4 * 8 + i % 4 * 2 + j % 2] = v;
    }
  multiply(d, a, b, 16, k, n);
  for (int i = 0; i < 32; i++)
    for (int j = 0; j < n / 2; j++) {
      float v = d[(i / 4 + j / 2 % 2 * 8) * n + j / 4 * 8 + i % 4 * 2 + j % 2];
      if (x.d_type == 'f') m[i]->d[j] = bits_of(v);
      else if (j % 2 == 0) m[i]->d[j / 2] = half_bits(v);
      else m[i]->d[j / 2] |= (u32)half_bits(v) << 16;
    }
}

static void do_matrix(Fiber *w, int op, u32 line) {
  MatrixData *m[32];
  for (int i = 0; i < 32; i++) m[i] = (MatrixData *)w[i].data;
  Fiber *self = current;
  if (op == MOVMATRIX) {
    u16 x[8][8];
    for (int i = 0; i < 32; i++) x[i / 4][i % 4 * 2] = (u16)m[i]->r[0], x[i / 4][i % 4 * 2 + 1] = (u16)(m[i]->r[0] >> 16);
    for (int i = 0; i < 32; i++) m[i]->r[0] = x[i % 4 * 2][i / 4] | (u32)x[i % 4 * 2 + 1][i / 4] << 16;
    return;
  }
  for (int c = 0; c < m[0]->count; c++) {
    u16 x[8][8];
    if (op == STMATRIX)
      for (int i = 0; i < 32; i++) {
        u16 lo = (u16)m[i]->r[c], hi = (u16)(m[i]->r[c] >> 16);
        if (m[0]->trans) x[i % 4 * 2][i / 4] = lo, x[i % 4 * 2 + 1][i / 4] = hi;
        else x[i / 4][i % 4 * 2] = lo, x[i / 4][i % 4 * 2 + 1] = hi;
      }
    for (int r = 0; r < 8; r++) {
      current = &w[c * 8 + r];
      u32 at = m[c * 8 + r]->at;
      if (op == STMATRIX) memcpy(vg_st_shared(at, 16, line), x[r], 16);
      else memcpy(x[r], vg_ld_shared(at, 16, line), 16);
    }
    if (op == LDMATRIX)
      for (int i = 0; i < 32; i++)
        m[i]->r[c] = m[0]->trans ? x[i % 4 * 2][i / 4] | (u32)x[i % 4 * 2 + 1][i / 4] << 16
                                 : x[i / 4][i % 4 * 2] | (u32)x[i / 4][i % 4 * 2 + 1] << 16;
  }
  current = self;
}

void collective(Fiber *f, Fiber *w, u32 there) {
  if (there != 0xffffffffu) {
    find("a warp that is not whole", f->line, "all 32 lanes are needed");
    die(719);
  }
  if (f->op == MMA) do_mma(w);
  else if (f->op == WGMMA) do_wgmma(w, f->line);
  else do_matrix(w, f->op, f->line);
}

extern "C" {

static void whole_warp(int op, void *data, u32 line) {
  current->data = data;
  together(op, 0xffffffffu, line);
}
void vg_mma(int k, int a_type, int b_type, int d_type, const u32 *a, const u32 *b, const u32 *c, u32 *d, u32 line) {
  MmaData x{k, a_type, b_type, d_type, a, b, c, d};
  whole_warp(MMA, &x, line);
}
void vg_wgmma(int n, int type, int d_type, u32 *d, const u32 *a, u64 a_at, u64 b_at, u32 scale_d, int sign_a, int sign_b, int trans_a,
              int trans_b, u32 line) {
  WgmmaData x{n, type, d_type, d, a, a_at, b_at, scale_d, sign_a, sign_b, trans_a, trans_b};
  for (u64 desc : {a ? (u64)0 : a_at, b_at})
    if (desc >> 49 & 7) {
      find("NOT SUPPORTED by this instrument", line, "a descriptor with a base offset");
      die(719);
    }
  whole_warp(WGMMA, &x, line);
}
void vg_wgmma_commit(u32) { wgmma_groups[current->index]++; }
void vg_wgmma_wait(u32 left, u32) {
  u32 t = current->index, g = wgmma_groups[t];
  if (g <= left) return;
  wgmma_done[t] = std::max(wgmma_done[t], g - left);
  if (!clocked) return;
  u32 &known = clock_of(t)[1024 + BULK + t / 128];
  known = std::max(known, g - left);
}
void vg_ldmatrix(u32 *r, int count, int trans, u64 address, u32 line) {
  MatrixData x{r, count, trans, shared_offset(address)};
  whole_warp(LDMATRIX, &x, line);
}
void vg_stmatrix(const u32 *r, int count, int trans, u64 address, u32 line) {
  MatrixData x{(u32 *)r, count, trans, shared_offset(address)};
  whole_warp(STMATRIX, &x, line);
}
u32 vg_movmatrix(u32 r, u32 line) {
  MatrixData x{&r, 1, 1, 0};
  whole_warp(MOVMATRIX, &x, line);
  return r;
}

void vg_setmaxnreg(u32 n, u32 line) {
  if (n < 24 || n > 256 || n % 8) {
    find("setmaxnreg", line, std::to_string(n) + " is no multiple of 8 from 24 to 256");
    die(719);
  }
}
void vg_note(const char *kind, const char *what, u32 line) { find(kind, line, what, false); }

}  // extern "C"

}  // namespace vg
