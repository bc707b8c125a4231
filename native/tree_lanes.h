// Sixteen lanes for the tree search: one register of 512 bits, or two of 256 (which compilers make a poor job of when
// left to split longer vectors themselves). MT_ISA as in lanes.h.
#pragma once

#ifndef MT_ISA
#error "define MT_ISA, the namespace of this instruction set, before including this header"
#endif

#include <cstdint>

#include <immintrin.h>

#include "book.h"

namespace multitok {
namespace MT_ISA {

#if defined(__AVX512F__)

typedef __m512 Lanes;
typedef __m512i Words;

MT_INLINE Lanes load(const float* from) { return _mm512_load_ps(from); }
MT_INLINE void store(float* to, Lanes v) { _mm512_store_ps(to, v); }
MT_INLINE Lanes splat(float x) { return _mm512_set1_ps(x); }
MT_INLINE Lanes splat_from(const float* x) { return _mm512_broadcastss_ps(_mm_load_ss(x)); }
MT_INLINE Words splat(int32_t x) { return _mm512_set1_epi32(x); }
MT_INLINE Lanes minus(Lanes a, Lanes b) { return _mm512_sub_ps(a, b); }
MT_INLINE Lanes square(Lanes a) { return _mm512_mul_ps(a, a); }
// sum + a * a, rounded once.
MT_INLINE Lanes add_square(Lanes a, Lanes sum) { return _mm512_fmadd_ps(a, a, sum); }
MT_INLINE Lanes clamp(Lanes a, Lanes low, Lanes high) { return _mm512_min_ps(_mm512_max_ps(a, low), high); }
// Bit i is set where lane i of a is at most that of b.
MT_INLINE uint32_t at_most(Lanes a, Lanes b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
MT_INLINE Words words_of(Lanes a) { return _mm512_castps_si512(a); }
MT_INLINE Words plus(Words a, Words b) { return _mm512_add_epi32(a, b); }
MT_INLINE Words lesser(Words a, Words b) { return _mm512_min_epi32(a, b); }
// (a and not bits) or tag
MT_INLINE Words tagged(Words a, Words bits, Words tag) { return _mm512_or_si512(_mm512_andnot_si512(bits, a), tag); }
MT_INLINE Words lane_numbers() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

MT_INLINE __m256 lesser_half(Lanes v) {
    return _mm256_min_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}
MT_INLINE __m256i lesser_half(Words v) {
    return _mm256_min_epi32(_mm512_castsi512_si256(v), _mm512_extracti32x8_epi32(v, 1));
}

// Writes first + i for each bit i of `bits`, and something behind them, 16 values in all; returns how many bits.
MT_INLINE int64_t write_bits(uint32_t bits, uint32_t first, uint32_t* to) {
    const __m512i all = plus(splat(static_cast<int32_t>(first)), lane_numbers());
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), all));
    return __builtin_popcount(bits);
}

#else

struct Lanes {
    __m256 low, high;
};
struct Words {
    __m256i low, high;
};

MT_INLINE Lanes load(const float* from) { return {_mm256_load_ps(from), _mm256_load_ps(from + 8)}; }
MT_INLINE void store(float* to, Lanes v) {
    _mm256_store_ps(to, v.low);
    _mm256_store_ps(to + 8, v.high);
}
MT_INLINE Lanes splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
MT_INLINE Lanes splat_from(const float* x) { return {_mm256_broadcast_ss(x), _mm256_broadcast_ss(x)}; }
MT_INLINE Words splat(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
MT_INLINE Lanes minus(Lanes a, Lanes b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
MT_INLINE Lanes square(Lanes a) { return {_mm256_mul_ps(a.low, a.low), _mm256_mul_ps(a.high, a.high)}; }
MT_INLINE Lanes add_square(Lanes a, Lanes sum) {
    return {_mm256_fmadd_ps(a.low, a.low, sum.low), _mm256_fmadd_ps(a.high, a.high, sum.high)};
}
MT_INLINE Lanes clamp(Lanes a, Lanes low, Lanes high) {
    return {_mm256_min_ps(_mm256_max_ps(a.low, low.low), high.low),
            _mm256_min_ps(_mm256_max_ps(a.high, low.high), high.high)};
}
MT_INLINE uint32_t at_most(Lanes a, Lanes b) {
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_LE_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_LE_OQ));
    return static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 8;
}
MT_INLINE Words words_of(Lanes a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
MT_INLINE Words plus(Words a, Words b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
MT_INLINE Words lesser(Words a, Words b) { return {_mm256_min_epi32(a.low, b.low), _mm256_min_epi32(a.high, b.high)}; }
MT_INLINE Words tagged(Words a, Words bits, Words tag) {
    return {_mm256_or_si256(_mm256_andnot_si256(bits.low, a.low), tag.low),
            _mm256_or_si256(_mm256_andnot_si256(bits.high, a.high), tag.high)};
}
MT_INLINE Words lane_numbers() {
    return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}

MT_INLINE __m256 lesser_half(Lanes v) { return _mm256_min_ps(v.low, v.high); }
MT_INLINE __m256i lesser_half(Words v) { return _mm256_min_epi32(v.low, v.high); }

// The places of the bits of each byte.
struct BitPlaces {
    uint8_t of[256][8];
};
constexpr BitPlaces bit_places() {
    BitPlaces places{};
    for (int byte = 0; byte < 256; byte++) {
        for (int bit = 0, count = 0; bit < 8; bit++) {
            if (byte >> bit & 1) places.of[byte][count++] = static_cast<uint8_t>(bit);
        }
    }
    return places;
}
static constexpr BitPlaces kBitPlaces = bit_places();

MT_INLINE int64_t write_bits(uint32_t bits, uint32_t first, uint32_t* to) {
    int64_t count = 0;
    for (int half = 0; half < 2; half++, bits >>= 8, first += 8) {
        const __m128i places = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kBitPlaces.of[bits & 255]));
        const __m256i base = _mm256_set1_epi32(static_cast<int32_t>(first));
        const __m256i all = _mm256_add_epi32(_mm256_cvtepu8_epi32(places), base);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + count), all);
        count += __builtin_popcount(bits & 255);
    }
    return count;
}

#endif

MT_INLINE float least_of(Lanes v) {
    const __m256 eight = lesser_half(v);
    __m128 four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_min_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_min_ss(four, _mm_movehdup_ps(four)));
}

MT_INLINE int32_t least_of(Words v) {
    const __m256i eight = lesser_half(v);
    __m128i four = _mm_min_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_min_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_min_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

}  // namespace MT_ISA
}  // namespace multitok
