// Everything in the kernels that only a CUDA compiler understands: inline assembly and dynamic shared memory.
//
// The rest of `cuda/` is C++17 with CUDA's own keywords and the built-in functions listed at the end, so that the
// same files run on a CPU: there MULTITOK_HOST_SHIM is defined and shim.h gives all of this with the same names.
#ifndef MULTITOK_PRIMITIVES
#define MULTITOK_PRIMITIVES

#ifdef MULTITOK_HOST_SHIM
#include "shim.h"
#else

// Declares `unsigned char* name`: the block's dynamic shared memory, 16-byte aligned. Once in a kernel.
#define MULTITOK_DYNAMIC_SHARED(name)                                          \
    extern __shared__ __align__(16) unsigned char multitok_dynamic_shared[];   \
    unsigned char* name = multitok_dynamic_shared

// sums[16, 8] += rows[16, 16] * columns[16, 8], bfloat16 products with float32 sums. Called by all 32 lanes together.
// With g = lane / 4 and t = lane % 4, two values of neighbouring k in one 32-bit word, lower k in the lower half:
//   rows[0..3]     row g, g + 8, g, g + 8     at k = 2t (first two) and 2t + 8 (last two)
//   columns[0..1]  column g                   at k = 2t and 2t + 8
//   sums[0..3]     row g (first two), g + 8   at columns 2t and 2t + 1
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&sums)[4], const unsigned (&rows)[4],
                                                  const unsigned (&columns)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(columns[0]), "r"(columns[1]));
}

// Four 8 x 8 tiles of 16-bit values from shared memory. Lane 8 m + r gives the address of row r (16 bytes, aligned) of
// tile m; every lane receives in tiles[m] the two values 2 (lane % 4) and the next of row lane / 4 of tile m.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&tiles)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
                 : "memory");
}

// Starts a copy of 16 bytes, both ends aligned to 16, that runs on its own. It belongs to the thread's open group.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}

// Closes the thread's open group of copies, which may be empty.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of the thread's closed groups, the newest ones, are still on their way. Other threads
// see what has landed after the next __syncthreads().
template <int PENDING>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#endif  // MULTITOK_HOST_SHIM

// Built-in functions in use, beside threadIdx, blockIdx, blockDim, gridDim, __shared__, float2, float4 and uint4:
//   __syncthreads, __syncwarp, __shfl_sync, __shfl_up_sync, __shfl_xor_sync, __ballot_sync, __any_sync,
//   atomicAdd (int, unsigned long long), atomicMin (long long), __popc, __ffs, __float_as_uint, __uint_as_float,
//   fmaf, fmaxf, fminf, fmax, fabs, sqrtf, sqrt, isfinite, __fsub_rn, __double2float_ru, __double2ll_rn,
//   __dadd_rn, __dsub_rn, __dmul_rn, __ddiv_rn, __dsqrt_rn

#define MULTITOK_ALL_LANES 0xffffffffu

// Counts of rows and of values pass 2^31. (The compiler for strings, NVRTC, has no <cstdint>.)
using index_t = long long;

// The 16 bits of a bfloat16.
using bfloat16_bits = unsigned short;

#endif  // MULTITOK_PRIMITIVES
