// What the AVX-512 paths of the stacks share: tiles of 12 pixels by 32 outputs, which fill 24 of the 32 registers.
#pragma once

#include "stack_kernels.h"

namespace multitok {
namespace MT_ISA {

struct Tiling {
    using Vector = __m512i;
    static constexpr int kLanes = 16, kPixels = 12, kTail = 4, kTailSteps = 2;
    static MT_INLINE Vector splat(const char* word) { return _mm512_set1_epi32(load<int32_t>(word)); }
};

// `Finish` in 512-bit registers. Conversions round to nearest even, as `FloatMode` has set.
template <class Activation>
struct WideFinish {
    template <int kPixels, int kGroups>
    static MT_INLINE void put(const ConvRow& row, const int32_t* sums, int64_t first_group, int64_t pixel) {
        __m512 scale[kGroups];
        for (int g = 0; g < kGroups; g++) scale[g] = _mm512_loadu_ps(row.scale + (first_group + g) * kOutputGroup);
        const auto each = [&](int bytes, auto put_one) __attribute__((always_inline)) {
            char* to = row.to + pixel * row.to_pitch + first_group * kOutputGroup * bytes;
            for (int p = 0; p < kPixels; p++, to += row.to_pitch) {
                for (int g = 0; g < kGroups; g++) {
                    const __m512i sum = _mm512_load_si512(sums + (p * kGroups + g) * kOutputGroup);
                    put_one(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale[g]), to + g * kOutputGroup * bytes, p, g);
                }
            }
        };
        const auto clamped = [](__m512 y, float low, float high) __attribute__((always_inline)) {
            return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(y, _mm512_set1_ps(low)), _mm512_set1_ps(high)));
        };
        switch (row.output) {
            case MT_TO_U8:
                return each(sizeof(Activation), [&](__m512 y, char* to, int, int) __attribute__((always_inline)) {
                    const __m512i activations = clamped(y, 0.0f, 255.0f);
                    if constexpr (sizeof(Activation) == 1) {
                        store(to, _mm512_cvtepi32_epi8(activations));
                    } else {
                        store(to, _mm512_cvtepi32_epi16(activations));
                    }
                });
            case MT_TO_S16:
                return each(2, [&](__m512 y, char* to, int, int) __attribute__((always_inline)) {
                    store(to, _mm512_cvtepi32_epi16(clamped(y, -32768.0f, 32767.0f)));
                });
            case MT_TO_S16_ADDED: {
                const char* stream = row.stream + pixel * row.stream_pitch + first_group * kOutputGroup * 2;
                return each(2, [&](__m512 y, char* to, int p, int g) __attribute__((always_inline)) {
                    const __m256i old = load<__m256i>(stream + p * row.stream_pitch + g * kOutputGroup * 2);
                    const __m256i update = _mm512_cvtepi32_epi16(clamped(y, -32768.0f, 32767.0f));
                    store(to, _mm256_adds_epi16(old, update));
                });
            }
            default:
                return each(4, [&](__m512 y, char* to, int, int) __attribute__((always_inline)) {
                    store(to, _mm512_cvtps_epi32(y));
                });
        }
    }
};

}  // namespace MT_ISA
}  // namespace multitok
