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

// Calls f(Index<0>), f(Index<1>), ... f(Index<kCount - 1>). Not a loop: with indices that are constants from the start
// GCC keeps an array of sums in registers, which it does not for a loop that it unrolls later.
template <int kIndex>
struct Index {
    static constexpr int value = kIndex;
};
template <int kCount, int kFrom = 0, class F>
MT_INLINE void unrolled(F f) {
    if constexpr (kFrom < kCount) {
        f(Index<kFrom>{});
        unrolled<kCount, kFrom + 1>(f);
    }
}
#define MT_EACH(name) [&](auto name) __attribute__((always_inline))

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
typedef double Double8 __attribute__((vector_size(64)));

#if defined(__AVX512F__)
typedef FloatRegister Float16;
typedef IntRegister Int16;
MT_INLINE Float16 to_float(Int16 v) { return __builtin_convertvector(v, Float16); }
#else
// Registers side by side, with the operators of a compiler vector: GCC takes a vector wider than a register apart lane
// by lane, and through memory.
template <class Register, class Value>
struct Wide {
    Register part[kRegisters];

    MT_INLINE Value operator[](int lane) const {
        Value lanes[16];
        __builtin_memcpy(lanes, part, sizeof lanes);
        return lanes[lane];
    }
    MT_INLINE Wide operator-() const {
        Wide r;
        unrolled<kRegisters>(MT_EACH(i) { r.part[i.value] = -part[i.value]; });
        return r;
    }
#define MT_LANEWISE(op)                                                                                               \
    friend MT_INLINE Wide operator op(Wide a, Wide b) {                                                               \
        unrolled<kRegisters>(MT_EACH(i) { a.part[i.value] = a.part[i.value] op b.part[i.value]; });                   \
        return a;                                                                                                     \
    }                                                                                                                 \
    friend MT_INLINE Wide operator op(Wide a, Value b) {                                                              \
        unrolled<kRegisters>(MT_EACH(i) { a.part[i.value] = a.part[i.value] op b; });                                 \
        return a;                                                                                                     \
    }                                                                                                                 \
    friend MT_INLINE Wide operator op(Value a, Wide b) {                                                              \
        unrolled<kRegisters>(MT_EACH(i) { b.part[i.value] = a op b.part[i.value]; });                                 \
        return b;                                                                                                     \
    }
    MT_LANEWISE(+)
    MT_LANEWISE(-)
    MT_LANEWISE(*)
    MT_LANEWISE(|)
    MT_LANEWISE(&)
    MT_LANEWISE(<<)
#undef MT_LANEWISE
};
typedef Wide<FloatRegister, float> Float16;
typedef Wide<IntRegister, int32_t> Int16;

template <>
MT_INLINE Float16 load<Float16>(const void* from) {
    Float16 v;
    unrolled<kRegisters>(MT_EACH(i) {
        v.part[i.value] = load<FloatRegister>(static_cast<const char*>(from) + i.value * kRegister);
    });
    return v;
}
template <>
MT_INLINE Int16 load<Int16>(const void* from) {
    Int16 v;
    unrolled<kRegisters>(MT_EACH(i) {
        v.part[i.value] = load<IntRegister>(static_cast<const char*>(from) + i.value * kRegister);
    });
    return v;
}
MT_INLINE Float16 to_float(Int16 v) {
    Float16 r;
    unrolled<kRegisters>(MT_EACH(i) { r.part[i.value] = __builtin_convertvector(v.part[i.value], FloatRegister); });
    return r;
}
#endif

MT_INLINE Float16 splat(float x) { return Float16{} + x; }
MT_INLINE Int16 splat(int32_t x) { return Int16{} + x; }

#if defined(__AVX512F__)
template <class Vector, class F>
MT_INLINE Vector by_register(Vector a, Vector b, F f) {
    return f(a, b);
}
#else
template <class Vector, class F>
MT_INLINE Vector by_register(Vector a, Vector b, F f) {
    unrolled<kRegisters>(MT_EACH(i) { a.part[i.value] = f(a.part[i.value], b.part[i.value]); });
    return a;
}
#endif

MT_INLINE Float16 lane_min(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return by_register(a, b, [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); });
#else
    return by_register(a, b, [](FloatRegister x, FloatRegister y) { return x < y ? x : y; });
#endif
}
MT_INLINE Float16 lane_max(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return by_register(a, b, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
#else
    return by_register(a, b, [](FloatRegister x, FloatRegister y) { return x > y ? x : y; });
#endif
}
MT_INLINE Int16 lane_min(Int16 a, Int16 b) {
    return by_register(a, b, [](IntRegister x, IntRegister y) { return x < y ? x : y; });
}
MT_INLINE Int16 lane_max(Int16 a, Int16 b) {
    return by_register(a, b, [](IntRegister x, IntRegister y) { return x > y ? x : y; });
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
#if defined(__AVX512F__)
template <class Vector, class F>
MT_INLINE uint32_t compared(Vector a, Vector b, F compare) {
    return bits_of(compare(a, b));
}
#else
template <class Vector, class F>
MT_INLINE uint32_t compared(Vector a, Vector b, F compare) {
    uint32_t bits = 0;
    unrolled<kRegisters>(MT_EACH(i) {
        bits |= bits_of(compare(a.part[i.value], b.part[i.value])) << (i.value * kRegisterLanes);
    });
    return bits;
}
#endif
MT_INLINE uint32_t at_most(Float16 a, Float16 b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
#else
    return compared(a, b, [](FloatRegister x, FloatRegister y) -> IntRegister { return x <= y; });
#endif
}
MT_INLINE uint32_t at_least(Float16 a, Float16 b) { return at_most(b, a); }
MT_INLINE uint32_t at_least(Int16 a, Int16 b) {
#if defined(__AVX512F__)
    return _mm512_cmp_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b), _MM_CMPINT_NLT);
#else
    return compared(a, b, [](IntRegister x, IntRegister y) -> IntRegister { return x >= y; });
#endif
}
MT_INLINE uint32_t equal(Int16 a, Int16 b) {
    return compared(a, b, [](IntRegister x, IntRegister y) -> IntRegister { return x == y; });
}

MT_INLINE float smallest(Float16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_ps(v);
#else
    float lanes[16];
    store(lanes, v);
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
    unrolled<2>(MT_EACH(i) { a.part[i.value] = _mm256_fmadd_ps(x.part[i.value], y.part[i.value], a.part[i.value]); });
    return a;
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
    Int16 r;
    unrolled<2>(MT_EACH(i) { r.part[i.value] = reinterpret_cast<IntRegister>(_mm256_cvtps_epi32(v.part[i.value])); });
    return r;
#endif
}
#endif

// The first `count` (1 to 16) of 16 floats; the rest 0, and not read.
MT_INLINE Float16 load_first(const float* from, int64_t count) {
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1), from);
#else
    if (count >= 16) return load<Float16>(from);
    float lanes[16] = {};
    for (int64_t i = 0; i < count; i++) lanes[i] = from[i];
    return load<Float16>(lanes);
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
