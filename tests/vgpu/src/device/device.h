/* What translated kernels see: types, the state of a thread, and the calls into the engine. C, and included by the engine as C++. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned __int128 u128;
typedef __int128 s128;

typedef struct VgBlock {
  u32 ntid[3], nctaid[3], ctaid[3];
  u8 *shared;
  u32 shared_size, dynamic_size;
} VgBlock;

typedef struct VgThread {
  u32 tid[3], lane, warp, index;
  VgBlock *b;
} VgThread;

/* Memory: each checks an access of n bytes and returns where it is on the host. */
const u8 *vg_ld_global(u64 address, u32 n, u32 line);
u8 *vg_st_global(u64 address, u32 n, u32 line);
u8 *vg_at_global(u64 address, u32 n, u32 line);
const u8 *vg_ld_shared(u64 address, u32 n, u32 line);
u8 *vg_st_shared(u64 address, u32 n, u32 line);
u8 *vg_at_shared(u64 address, u32 n, u32 line);
const u8 *vg_ld_local(u64 address, u32 n, u32 line);
u8 *vg_st_local(u64 address, u32 n, u32 line);
const u8 *vg_ld_generic(u64 address, u32 n, u32 line);
u8 *vg_st_generic(u64 address, u32 n, u32 line);
u8 *vg_at_generic(u64 address, u32 n, u32 line);
const u8 *vg_ld_strong(u64 address, u32 n, u32 line); /* of global memory or any: volatile, relaxed, acquire; */
u8 *vg_st_strong(u64 address, u32 n, u32 line);       /* volatile, relaxed, release */
u64 vg_shared_base(void);
int vg_is_space(u64 address, int space); /* 'g', 's', 'l', 'c', 'p' */

/* Threads with one another. */
void vg_barrier(u32 id, u32 count, int mode, u32 line);            /* mode 0 sync, 1 arrive */
u32 vg_barrier_red(u32 id, u32 count, int op, u32 pred, u32 line); /* 'p' popc, 'a' and, 'o' or */
void vg_warp_sync(u32 mask, u32 line);
u32 vg_shfl(int mode, u32 value, u32 b, u32 c, u32 mask, u8 *pred, u32 line); /* 'u' 'd' 'b' 'i' */
u32 vg_vote(int mode, u32 pred, u32 mask, u32 line);                          /* 'a' all, 'o' any, 'u' uni, 'b' ballot */
u32 vg_match(int mode, u64 value, u32 mask, u8 *pred, u32 line);              /* 'a' all, 'o' any */
u32 vg_redux(int op, u32 value, u32 mask, u32 line);                          /* + & | ^ and < > signed, l g unsigned */
u32 vg_elect(u32 mask, u8 *pred, u32 line);
void vg_fence(u32 line);
void vg_yield(void);
void vg_grid_wait(void);

/* The end of a thread, one way or another. */
void vg_exit(void) __attribute__((noreturn));
void vg_trap(u32 line) __attribute__((noreturn));
void vg_unsupported(const char *what, u32 line) __attribute__((noreturn));
void vg_assertfail(u64 message, u64 file, u32 source_line, u64 function, u32 line) __attribute__((noreturn));
u32 vg_vprintf(u64 format, u64 arguments);
u64 vg_malloc(u64 size);
void vg_free(u64 address);
u64 vg_clock(void);
u64 vg_timer(void);

/* Arithmetic with a rounding that is not to nearest: 'z' to zero, 'm' down, 'p' up. */
float vg_add_f32(float a, float b, int rounding);
float vg_mul_f32(float a, float b, int rounding);
float vg_fma_f32(float a, float b, float c, int rounding);
float vg_div_f32(float a, float b, int rounding);
float vg_sqrt_f32(float a, int rounding);
double vg_add_f64(double a, double b, int rounding);
double vg_mul_f64(double a, double b, int rounding);
double vg_fma_f64(double a, double b, double c, int rounding);
double vg_div_f64(double a, double b, int rounding);
double vg_sqrt_f64(double a, int rounding);
float vg_f64_to_f32(double a, int rounding);
float vg_s64_to_f32(s64 a, int rounding);
float vg_u64_to_f32(u64 a, int rounding);
double vg_s64_to_f64(s64 a, int rounding);
double vg_u64_to_f64(u64 a, int rounding);
#ifdef __cplusplus
}
#else

#define INL static inline __attribute__((always_inline, unused))
INL float BF(u32 x) {
  float y;
  memcpy(&y, &x, 4);
  return y;
}
INL u32 BU(float x) {
  u32 y;
  memcpy(&y, &x, 4);
  return y;
}
INL double BD(u64 x) {
  double y;
  memcpy(&y, &x, 8);
  return y;
}
INL u64 BL(double x) {
  u64 y;
  memcpy(&y, &x, 8);
  return y;
}
INL float BH(u16 x) {
  _Float16 y;
  memcpy(&y, &x, 2);
  return (float)y;
}
INL u16 HB(float x) {
  _Float16 y = (_Float16)x;
  u16 z;
  memcpy(&z, &y, 2);
  return z;
}
INL u16 HBD(double x) {
  _Float16 y = (_Float16)x;
  u16 z;
  memcpy(&z, &y, 2);
  return z;
}
INL float BB(u16 x) { return BF((u32)x << 16); }
INL u16 BBU(float x) {
  u32 b = BU(x);
  if (x != x) return 0x7fff;
  return (u16)((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
/* With another rounding: the nearest, or its neighbour where that lies on the wrong side. */
INL u16 STEP16(u16 b, double y, double x, int r) {
  if (y > x && (r == 'm' || (r == 'z' && x > 0))) return (b & 0x7fff) == 0 ? 0x8001 : b & 0x8000 ? b + 1 : b - 1;
  if (y < x && (r == 'p' || (r == 'z' && x < 0))) return (b & 0x7fff) == 0 ? 1 : b & 0x8000 ? b - 1 : b + 1;
  return b;
}
INL u16 HBR(double x, int r) { return STEP16(HBD(x), BH(HBD(x)), x, r); }
INL u16 BBR(double x, int r) { return STEP16(BBU((float)x), BB(BBU((float)x)), x, r); }
INL float FTZ(float x) { return __builtin_fabsf(x) < 1.17549435e-38f ? __builtin_copysignf(0.0f, x) : x; }
INL float SATF(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
INL double SATD(double x) { return x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0; }
/* The chip's only NaN of an operation is 0x7fffffff. */
INL float NANF(float x) { return x != x ? BF(0x7fffffffu) : x; }
INL double NAND(double x) { return x != x ? BD(0x7fffffffffffffffull) : x; }
INL float MINF(float a, float b) { return a != a ? NANF(b) : b != b ? a : a < b ? a : a > b ? b : BF(BU(a) | BU(b)); }
INL float MAXF(float a, float b) { return a != a ? NANF(b) : b != b ? a : a > b ? a : a < b ? b : BF(BU(a) & BU(b)); }
INL float MINNF(float a, float b) { return a != a || b != b ? BF(0x7fffffffu) : MINF(a, b); }
INL float MAXNF(float a, float b) { return a != a || b != b ? BF(0x7fffffffu) : MAXF(a, b); }
INL double MIND(double a, double b) { return a != a ? NAND(b) : b != b ? a : a < b ? a : a > b ? b : BD(BL(a) | BL(b)); }
INL double MAXD(double a, double b) { return a != a ? NAND(b) : b != b ? a : a > b ? a : a < b ? b : BD(BL(a) & BL(b)); }
INL u32 DIVU32(u32 a, u32 b) { return b ? a / b : 0xffffffffu; }
INL u32 REMU32(u32 a, u32 b) { return b ? a % b : a; }
INL u64 DIVU64(u64 a, u64 b) { return b ? a / b : ~0ull; }
INL u64 REMU64(u64 a, u64 b) { return b ? a % b : a; }
INL s32 DIVS32(s32 a, s32 b) { return b == 0 ? -1 : b == -1 ? (s32)(0u - (u32)a) : a / b; }
INL s32 REMS32(s32 a, s32 b) { return b == 0 ? a : b == -1 ? 0 : a % b; }
INL s64 DIVS64(s64 a, s64 b) { return b == 0 ? -1 : b == -1 ? (s64)(0ull - (u64)a) : a / b; }
INL s64 REMS64(s64 a, s64 b) { return b == 0 ? a : b == -1 ? 0 : a % b; }
INL u32 SHL32(u32 a, u32 n) { return n > 31 ? 0 : a << n; }
INL u64 SHL64(u64 a, u32 n) { return n > 63 ? 0 : a << n; }
INL u32 SHRU32(u32 a, u32 n) { return n > 31 ? 0 : a >> n; }
INL u64 SHRU64(u64 a, u32 n) { return n > 63 ? 0 : a >> n; }
INL s32 SHRS32(s32 a, u32 n) { return a >> (n > 31 ? 31 : n); }
INL s64 SHRS64(s64 a, u32 n) { return a >> (n > 63 ? 63 : n); }
INL u32 CLZ32(u32 a) { return a ? __builtin_clz(a) : 32; }
INL u32 CLZ64(u64 a) { return a ? __builtin_clzll(a) : 64; }
INL u32 BREV32(u32 a) {
  u32 r = 0;
  for (int i = 0; i < 32; i++) r |= ((a >> i) & 1) << (31 - i);
  return r;
}
INL u64 BREV64(u64 a) {
  u64 r = 0;
  for (int i = 0; i < 64; i++) r |= ((a >> i) & 1) << (63 - i);
  return r;
}
INL u32 BFINDU32(u32 a) { return a ? 31 - __builtin_clz(a) : 0xffffffffu; }
INL u32 BFINDS32(s32 a) { return BFINDU32((u32)(a < 0 ? ~a : a)); }
INL u32 BFINDU64(u64 a) { return a ? 63 - __builtin_clzll(a) : 0xffffffffu; }
INL u32 BFINDS64(s64 a) { return BFINDU64((u64)(a < 0 ? ~a : a)); }
INL u64 BFEU(u64 a, u32 pos, u32 len, u32 width) {
  pos &= 255, len &= 255;
  if (pos >= width || len == 0) return 0;
  u64 v = a >> pos;
  return len >= 64 ? v : v & ((1ull << len) - 1);
}
INL u64 BFES(s64 a, u32 pos, u32 len, u32 width) {
  pos &= 255, len &= 255;
  if (len == 0) return 0;
  u32 top = pos + len - 1 < width - 1 ? pos + len - 1 : width - 1;
  u64 sign = ((u64)a >> top) & 1, r = 0;
  for (u32 i = 0; i < width; i++) r |= (u64)(i < len && pos + i < width ? ((u64)a >> (pos + i)) & 1 : sign) << i;
  return r;
}
INL u64 BFI(u64 a, u64 b, u32 pos, u32 len, u32 width) {
  pos &= 255, len &= 255;
  for (u32 i = 0; i < len && pos + i < width; i++) b = (b & ~(1ull << (pos + i))) | (((a >> i) & 1) << (pos + i));
  return b;
}
INL u32 PRMT(u32 a, u32 b, u32 c) {
  u64 all = (u64)b << 32 | a;
  u32 r = 0;
  for (int i = 0; i < 4; i++) {
    u32 s = (c >> (4 * i)) & 15, v = (all >> (8 * (s & 7))) & 255;
    if (s & 8) v = v & 128 ? 255 : 0;
    r |= v << (8 * i);
  }
  return r;
}
INL u32 LOP3(u32 a, u32 b, u32 c, u32 t) {
  u32 r = 0;
  if (t & 1) r |= ~a & ~b & ~c;
  if (t & 2) r |= ~a & ~b & c;
  if (t & 4) r |= ~a & b & ~c;
  if (t & 8) r |= ~a & b & c;
  if (t & 16) r |= a & ~b & ~c;
  if (t & 32) r |= a & ~b & c;
  if (t & 64) r |= a & b & ~c;
  if (t & 128) r |= a & b & c;
  return r;
}
INL u32 SHFL_L(u32 a, u32 b, u32 c, int wrap) {
  u32 n = wrap ? c & 31 : c > 32 ? 32 : c;
  return n == 0 ? b : n == 32 ? a : b << n | a >> (32 - n);
}
INL u32 SHFL_R(u32 a, u32 b, u32 c, int wrap) {
  u32 n = wrap ? c & 31 : c > 32 ? 32 : c;
  return n == 0 ? a : n == 32 ? b : b << (32 - n) | a >> n;
}
INL s32 DP4A(u32 a, u32 b, s32 c, int sa, int sb) {
  for (int i = 0; i < 4; i++) {
    s32 x = sa ? (s8)(a >> 8 * i) : (u8)(a >> 8 * i), y = sb ? (s8)(b >> 8 * i) : (u8)(b >> 8 * i);
    c = (s32)((u32)c + (u32)(x * y));
  }
  return c;
}
INL s32 DP2A(int from, u32 a, u32 b, s32 c, int sa, int sb) {
  for (int i = 0; i < 2; i++) {
    s32 x = sa ? (s16)(a >> 16 * i) : (u16)(a >> 16 * i), y = sb ? (s8)(b >> 8 * (from + i)) : (u8)(b >> 8 * (from + i));
    c = (s32)((u32)c + (u32)x * (u32)y);
  }
  return c;
}
/* Floating point to integer: saturated, and 0 for NaN. */
#define TO_INT(name, T, least, most) \
  INL T name(double x) { return x != x ? 0 : x <= (double)(least) ? (T)(least) : x >= (double)(most) ? (T)(most) : (T)x; }
TO_INT(TO_s8, s8, -128, 127)
TO_INT(TO_u8, u8, 0, 255)
TO_INT(TO_s16, s16, -32768, 32767)
TO_INT(TO_u16, u16, 0, 65535)
TO_INT(TO_s32, s32, INT32_MIN, INT32_MAX)
TO_INT(TO_u32, u32, 0, UINT32_MAX)
TO_INT(TO_s64, s64, INT64_MIN, INT64_MAX)
TO_INT(TO_u64, u64, 0, UINT64_MAX)
#define SATI(T, x, least, most) ((T)((s128)(x) < (s128)(least) ? (s128)(least) : (s128)(x) > (s128)(most) ? (s128)(most) : (s128)(x)))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#endif
