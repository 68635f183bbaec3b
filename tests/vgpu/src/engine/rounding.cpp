// Arithmetic with a rounding that is not to nearest.
#include <fenv.h>

#include "device/device.h"

namespace vg {

namespace {
struct Rounding {
  int saved = fegetround();
  explicit Rounding(int r) { fesetround(r == 'z' ? FE_TOWARDZERO : r == 'm' ? FE_DOWNWARD : r == 'p' ? FE_UPWARD : FE_TONEAREST); }
  ~Rounding() { fesetround(saved); }
};
}  // namespace

#define UNDER(T, expression) \
  {                          \
    volatile T out;          \
    {                        \
      Rounding set(r);       \
      out = (expression);    \
    }                        \
    return out;              \
  }
extern "C" {
float vg_add_f32(float a, float b, int r) {
  volatile float x = a, y = b;
  UNDER(float, x + y)
}
float vg_mul_f32(float a, float b, int r) {
  volatile float x = a, y = b;
  UNDER(float, x *y)
}
float vg_div_f32(float a, float b, int r) {
  volatile float x = a, y = b;
  UNDER(float, x / y)
}
float vg_fma_f32(float a, float b, float c, int r) {
  volatile float x = a, y = b, z = c;
  UNDER(float, __builtin_fmaf(x, y, z))
}
float vg_sqrt_f32(float a, int r) {
  volatile float x = a;
  UNDER(float, __builtin_sqrtf(x))
}
double vg_add_f64(double a, double b, int r) {
  volatile double x = a, y = b;
  UNDER(double, x + y)
}
double vg_mul_f64(double a, double b, int r) {
  volatile double x = a, y = b;
  UNDER(double, x *y)
}
double vg_div_f64(double a, double b, int r) {
  volatile double x = a, y = b;
  UNDER(double, x / y)
}
double vg_fma_f64(double a, double b, double c, int r) {
  volatile double x = a, y = b, z = c;
  UNDER(double, __builtin_fma(x, y, z))
}
double vg_sqrt_f64(double a, int r) {
  volatile double x = a;
  UNDER(double, __builtin_sqrt(x))
}
float vg_f64_to_f32(double a, int r) {
  volatile double x = a;
  UNDER(float, (float)x)
}
float vg_s64_to_f32(s64 a, int r) {
  volatile s64 x = a;
  UNDER(float, (float)x)
}
float vg_u64_to_f32(u64 a, int r) {
  volatile u64 x = a;
  UNDER(float, (float)x)
}
double vg_s64_to_f64(s64 a, int r) {
  volatile s64 x = a;
  UNDER(double, (double)x)
}
double vg_u64_to_f64(u64 a, int r) {
  volatile u64 x = a;
  UNDER(double, (double)x)
}
}  // extern "C"

}  // namespace vg
