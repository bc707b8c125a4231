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

MT_INLINE Float16 lane_min(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#else
    return a < b ? a : b;
#endif
}
MT_INLINE Float16 lane_max(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}
MT_INLINE Int16 lane_min(Int16 a, Int16 b) { return a < b ? a : b; }
MT_INLINE Int16 lane_max(Int16 a, Int16 b) { return a > b ? a : b; }

// Bit i is set where lane i of the comparison holds.
MT_INLINE uint32_t bits_of(Int16 truth) {
#if defined(__AVX512DQ__)
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(truth));
#elif defined(__AVX2__)
    __m256 low, high;
    __builtin_memcpy(&low, &truth, 32);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&truth) + 32, 32);
    return static_cast<uint32_t>(_mm256_movemask_ps(low)) | static_cast<uint32_t>(_mm256_movemask_ps(high)) << 8;
#else
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++) bits |= static_cast<uint32_t>(truth[i] & 1) << i;
    return bits;
#endif
}
MT_INLINE uint32_t at_most(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
#else
    return bits_of(a <= b);
#endif
}
MT_INLINE uint32_t at_least(Float16 a, Float16 b) { return at_most(b, a); }
MT_INLINE uint32_t at_least(Int16 a, Int16 b) {
#if defined(__AVX512F__)
    return _mm512_cmp_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b), _MM_CMPINT_NLT);
#else
    return bits_of(a >= b);
#endif
}

MT_INLINE float smallest(Float16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_ps(v);
#else
    float least = v[0];
    for (int i = 1; i < 16; i++) least = v[i] < least ? v[i] : least;
    return least;
#endif
}

// a + x * y, rounded once where the processor can: for bounds and proposals only, never for a decision.
MT_INLINE Float16 multiply_add(Float16 x, Float16 y, Float16 a) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(x, y, a);
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
    for (int i = 0; i < 16; i++) {
        for (int j = i + 1; j < 16; j++) {
            const float swap = r[i][j];
            r[i][j] = r[j][i];
            r[j][i] = swap;
        }
    }
#endif
}

}  // namespace MT_ISA
}  // namespace multitok
