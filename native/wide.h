// What the AVX-512 paths share: 16 integer sums a register, three of them a tile.
#pragma once

#include "integer.h"

namespace multitok {
namespace MT_ISA {

// The base of a Dot (integer.h).
struct Wide {
    using Vector = __m512i;
    static constexpr int64_t kLanes = 16, kVectors = 3;
    static MT_INLINE Vector splat(int32_t x) { return _mm512_set1_epi32(x); }
    static MT_INLINE Vector load(const int32_t* from) { return _mm512_loadu_si512(from); }
    static MT_INLINE void store(int32_t* to, Vector v) { _mm512_storeu_si512(to, v); }
    static MT_INLINE Vector largest(Vector a, Vector b) { return _mm512_max_epi32(a, b); }
};

// The sums of 8 codes for 48 vectors fill 24 of the 32 registers; the last vectors of a block leave room for
// `Dot::kCodesOfOne` codes at once where there is one batch of 16.
template <class Dot>
static void tile_of(const Book& book, const IntegerCodes& integers, const int32_t* x, const int32_t* bias, int64_t unit,
                    int64_t from, int64_t to, int32_t* maxima, int64_t batches) {
    switch (batches) {
        case 1:
            return tile_maxima_of<Dot, Dot::kCodesOfOne, 1>(book, integers, x, bias, unit, from, to, maxima, 16);
        case 2: return tile_maxima_of<Dot, 8, 2>(book, integers, x, bias, unit, from, to, maxima, 32);
        default: return tile_maxima_of<Dot, 8, 3>(book, integers, x, bias, unit, from, to, maxima, 48);
    }
}

}  // namespace MT_ISA
}  // namespace multitok
