// Sixteen float32 or int32 values at once, one a lane, in compiler vectors: one 512-bit register, two of 256 bits or four
// of 128, as the file that includes this is compiled. Such a file defines MT_ISA first, a namespace of its own, so that
// the linker never takes a function compiled for one processor in place of its twin for another.
#pragma once

#ifndef MT_ISA
#error "define MT_ISA, the namespace of this instruction set, before including this header"
#endif

#include <cstdint>
#include <cstring>

#include "book.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace multitok {
namespace MT_ISA {

typedef float Float16 __attribute__((vector_size(64)));
typedef int32_t Int16 __attribute__((vector_size(64)));
typedef double Double8 __attribute__((vector_size(64)));

// Memory is read through memcpy, which becomes one load and asks for no alignment.
template <class Vector>
MT_INLINE Vector load(const void* from) {
    Vector v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}
template <class Vector>
MT_INLINE void store(void* to, Vector v) {
    __builtin_memcpy(to, &v, sizeof v);
}

MT_INLINE Float16 splat(float x) { return Float16{} + x; }
MT_INLINE Int16 splat(int32_t x) { return Int16{} + x; }

// Comparisons go register by register: GCC takes those of vectors wider than a register apart lane by lane.
#if defined(__AVX512F__)
constexpr int kRegister = 64;
#elif defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
constexpr int kRegisters = 64 / kRegister, kRegisterLanes = 16 / kRegisters;
typedef float FloatRegister __attribute__((vector_size(kRegister)));
typedef int32_t IntRegister __attribute__((vector_size(kRegister)));

template <class Register, class Vector, class F>
MT_INLINE Vector by_register(Vector a, Vector b, F f) {
    Register x[kRegisters], y[kRegisters];
    __builtin_memcpy(x, &a, sizeof a);
    __builtin_memcpy(y, &b, sizeof b);
    for (int i = 0; i < kRegisters; i++) x[i] = f(x[i], y[i]);
    return load<Vector>(x);
}

MT_INLINE Float16 lane_min(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return by_register<FloatRegister>(a, b, [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); });
#else
    return by_register<FloatRegister>(a, b, [](FloatRegister x, FloatRegister y) { return x < y ? x : y; });
#endif
}
MT_INLINE Float16 lane_max(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return by_register<FloatRegister>(a, b, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
#else
    return by_register<FloatRegister>(a, b, [](FloatRegister x, FloatRegister y) { return x > y ? x : y; });
#endif
}
MT_INLINE Int16 lane_min(Int16 a, Int16 b) {
    return by_register<IntRegister>(a, b, [](IntRegister x, IntRegister y) { return x < y ? x : y; });
}
MT_INLINE Int16 lane_max(Int16 a, Int16 b) {
    return by_register<IntRegister>(a, b, [](IntRegister x, IntRegister y) { return x > y ? x : y; });
}

// Bit i is set where lane i of a comparison of two registers holds.
MT_INLINE uint32_t bits_of(IntRegister truth) {
#if defined(__AVX512DQ__)
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(truth));
#elif defined(__AVX2__)
    return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(truth)));
#elif defined(__SSE2__)
    return static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(truth)));
#else
    uint32_t bits = 0;
    for (int i = 0; i < kRegisterLanes; i++) bits |= static_cast<uint32_t>(truth[i] & 1) << i;
    return bits;
#endif
}

// Bit i is set where compare(a, b) holds in lane i.
template <class Register, class Vector, class F>
MT_INLINE uint32_t compared(Vector a, Vector b, F compare) {
    Register x[kRegisters], y[kRegisters];
    __builtin_memcpy(x, &a, sizeof a);
    __builtin_memcpy(y, &b, sizeof b);
    uint32_t bits = 0;
    for (int i = 0; i < kRegisters; i++) bits |= bits_of(compare(x[i], y[i])) << (i * kRegisterLanes);
    return bits;
}
MT_INLINE uint32_t at_most(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
#else
    return compared<FloatRegister>(a, b, [](FloatRegister x, FloatRegister y) -> IntRegister { return x <= y; });
#endif
}
MT_INLINE uint32_t at_least(Float16 a, Float16 b) { return at_most(b, a); }
MT_INLINE uint32_t at_least(Int16 a, Int16 b) {
#if defined(__AVX512F__)
    return _mm512_cmp_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b), _MM_CMPINT_NLT);
#else
    return compared<IntRegister>(a, b, [](IntRegister x, IntRegister y) -> IntRegister { return x >= y; });
#endif
}
MT_INLINE uint32_t equal(Int16 a, Int16 b) {
    return compared<IntRegister>(a, b, [](IntRegister x, IntRegister y) -> IntRegister { return x == y; });
}

MT_INLINE float smallest(Float16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_ps(v);
#else
    float lanes[16];
    __builtin_memcpy(lanes, &v, sizeof v);
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) lanes[i] = lanes[i + half] < lanes[i] ? lanes[i + half] : lanes[i];
    }
    return lanes[0];
#endif
}

// a + x * y, rounded once where the processor can: for bounds and proposals only, never for a decision.
MT_INLINE Float16 multiply_add(Float16 x, Float16 y, Float16 a) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(x, y, a);
#elif defined(__FMA__)
    __m256 u[2], v[2], sum[2];
    __builtin_memcpy(u, &x, sizeof x);
    __builtin_memcpy(v, &y, sizeof y);
    __builtin_memcpy(sum, &a, sizeof a);
    for (int i = 0; i < 2; i++) sum[i] = _mm256_fmadd_ps(u[i], v[i], sum[i]);
    return load<Float16>(sum);
#else
    return a + x * y;
#endif
}

#if defined(__AVX2__)
// To nearest, ties to even; |v| < 2^31.
MT_INLINE Int16 round_to_int(Float16 v) {
#if defined(__AVX512F__)
    return reinterpret_cast<Int16>(_mm512_cvtps_epi32(v));
#else
    __m256 part[2];
    __builtin_memcpy(part, &v, sizeof v);
    const __m256i rounded[2] = {_mm256_cvtps_epi32(part[0]), _mm256_cvtps_epi32(part[1])};
    Int16 result;
    __builtin_memcpy(&result, rounded, sizeof result);
    return result;
#endif
}
#endif

// The first `count` (1 to 16) of 16 floats; the rest 0, and not read.
MT_INLINE Float16 load_first(const float* from, int64_t count) {
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1), from);
#else
    Float16 v{};
    __builtin_memcpy(&v, from, static_cast<size_t>(count < 16 ? count : 16) * sizeof(float));
    return v;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// 8 x 8 values of two 16 x 16 matrices.
MT_INLINE void transpose8(const float* from, float* to) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(from + i * 16);
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * 16, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * 16, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}
#endif

// 16 x 16 values: lane q of register d becomes lane d of register q.
MT_INLINE void transpose(Float16 (&r)[16]) {
#if defined(__AVX512F__)
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    auto low = [](__m512 a, __m512 b) {
        return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    auto high = [](__m512 a, __m512 b) {
        return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    __m512 s[16];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        s[4 * i] = low(t[4 * i], t[4 * i + 2]);
        s[4 * i + 1] = high(t[4 * i], t[4 * i + 2]);
        s[4 * i + 2] = low(t[4 * i + 1], t[4 * i + 3]);
        s[4 * i + 3] = high(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            t[8 * i + j] = _mm512_shuffle_f32x4(s[8 * i + j], s[8 * i + 4 + j], 0x88);
            t[8 * i + 4 + j] = _mm512_shuffle_f32x4(s[8 * i + j], s[8 * i + 4 + j], 0xdd);
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        r[j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0x88);
        r[8 + j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0xdd);
    }
#else
    float lanes[16][16], turned[16][16];
    __builtin_memcpy(lanes, r, sizeof lanes);
#if defined(__AVX2__)
    for (int i = 0; i < 16; i += 8) {
        for (int j = 0; j < 16; j += 8) transpose8(&lanes[i][j], &turned[j][i]);
    }
#else
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++) turned[j][i] = lanes[i][j];
    }
#endif
    __builtin_memcpy(r, turned, sizeof lanes);
#endif
}

}  // namespace MT_ISA
}  // namespace multitok
