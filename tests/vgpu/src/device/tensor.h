/* What translated kernels see besides device.h where they use tensor cores, asynchronous copies or mbarriers. C, and included by the
 * engine. */
#pragma once
#include "device.h"
#ifdef __cplusplus
extern "C" {
#endif
/* Types of elements: 't' tf32, 'h' f16, 'b' bf16, 's' s8, 'u' u8; of sums: 'f' f32, 'h' f16, 'i' s32. All registers are passed as bits. */
void vg_mma(int k, int a_type, int b_type, int d_type, const u32 *a, const u32 *b, const u32 *c, u32 *d, u32 line);
void vg_wgmma(int n, int type, int d_type, u32 *d, const u32 *a, u64 a_at, u64 b_at, u32 scale_d, int sign_a, int sign_b, int trans_a,
              int trans_b, u32 line);
void vg_wgmma_commit(u32 line);
void vg_wgmma_wait(u32 left, u32 line);
u32 vg_wgmma_flight(char kind);
void vg_wgmma_read(u32 *flight, const char *name, u32 line);
void vg_wgmma_written(u32 *flight, const char *name, u32 line);
void vg_wgmma_summed(u32 *flight, const char *name, u32 line);
void vg_wgmma_copied(u32 *flight, u32 from, const char *name, u32 line);
void vg_ldmatrix(u32 *r, int count, int trans, u64 address, u32 line);
void vg_stmatrix(const u32 *r, int count, int trans, u64 address, u32 line);
u32 vg_movmatrix(u32 r, u32 line);
void vg_cp_async(u64 to, u64 from, u32 n, u32 source, u32 line);
void vg_cp_commit(void);
void vg_cp_wait(u32 left, int all, u32 line);
void vg_cp_arrive(u64 mbarrier, int noinc, u32 line);
void vg_bulk_in(u64 to, u64 from, u32 n, u64 mbarrier, u32 line);
void vg_bulk_out(u64 to, u64 from, u32 n, u32 line);
void vg_tensor_in(u64 to, u64 map, int rank, const s32 *at, u64 mbarrier, u32 line);
void vg_tensor_out(u64 map, int rank, const s32 *at, u64 from, u32 line);
void vg_proxy_fence(u32 line);
void vg_mbar_init(u64 at, u32 count, u32 line);
void vg_mbar_inval(u64 at, u32 line);
u64 vg_mbar_arrive(u64 at, u32 count, u32 tx, int drop, u32 line);
void vg_mbar_tx(u64 at, u32 tx, int complete, u32 line);
u32 vg_mbar_wait(u64 at, u64 state, int parity, u32 line);
void vg_setmaxnreg(u32 n, u32 line);
void vg_note(const char *kind, const char *what, u32 line);
#ifdef __cplusplus
}
#else
INL u32 TF32A(float x) {
  u32 b = BU(x);
  return x != x ? 0x7fffffffu : (b & 0x7f800000u) == 0x7f800000u ? b : (b + 0x1000u) & 0xffffe000u;
}
INL u32 TF32N(float x) {
  u32 b = BU(x);
  return x != x ? 0x7fffffffu : (b & 0x7f800000u) == 0x7f800000u ? b : (b + 0xfffu + (b >> 13 & 1)) & 0xffffe000u;
}
INL u32 TF32Z(float x) { return x != x ? 0x7fffffffu : BU(x) & 0xffffe000u; }
INL u16 BBZ(float x) { return x != x ? 0x7fff : (u16)(BU(x) >> 16); }
#endif
