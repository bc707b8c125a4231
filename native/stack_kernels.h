// The convolution of a row by register tiles, for any instruction set. A file that includes this defines MT_ISA first, a
// namespace of its own (see lanes.h), and gives `Tiling` and one or two kinds of products to `conv_row`.
#pragma once

#ifndef MT_ISA
#error "define MT_ISA, the namespace of this instruction set, before including this header"
#endif

#include <cstdint>
#include <cstring>

#include "lanes.h"
#include "multitok_stacks.h"
#include "stack.h"

namespace multitok {
namespace MT_ISA {

// One way to multiply: a word of one pixel's values with the same word of the weights of `kLanes` outputs.
//     Vector, kLanes
//     Vector splat(const char* word)                  the word in every lane
//     Vector dot(Vector sum, Vector x, Vector w)      sum + products, lane by lane
//
// Tile sizes for it:
//     kPixels, kTail, kTailSteps    pixels of a full tile, and of those at a row's end: kTail * (1 to kTailSteps)

// 16 sums, scaled, clamped and rounded. A clamped value is below 2^22, where adding and taking away 1.5 * 2^23 rounds to
// an integer, ties to even.
MT_INLINE void scaled(const int32_t* sums, const float* scale, float low, float high, int32_t* to) {
    const FloatRegister lowest = low - FloatRegister{}, highest = high - FloatRegister{};
    for (int i = 0; i < kOutputGroup; i += kRegisterLanes) {
        FloatRegister y = __builtin_convertvector(load<IntRegister>(sums + i), FloatRegister);
        y *= load<FloatRegister>(scale + i);
        y = y > lowest ? y : lowest;
        y = y < highest ? y : highest;
        store(to + i, __builtin_convertvector((y + 12582912.0f) - 12582912.0f, IntRegister));
    }
}

// Eight int32 as int16, saturated, to which eight more are added, saturated; nullptr: none.
typedef int16_t Short8 __attribute__((vector_size(16)));
MT_INLINE Short8 added(const int32_t* values, const char* more) {
#if defined(__SSE2__)
    const __m128i narrow = _mm_packs_epi32(load<__m128i>(values), load<__m128i>(values + 4));
    return reinterpret_cast<Short8>(more ? _mm_adds_epi16(narrow, load<__m128i>(more)) : narrow);
#else
    Short8 narrow, old{};
    if (more) old = load<Short8>(more);
    for (int i = 0; i < 8; i++) {
        const int32_t clamped = values[i] < -32768 ? -32768 : values[i] > 32767 ? 32767 : values[i];
        const int32_t sum = clamped + old[i];
        narrow[i] = static_cast<int16_t>(sum < -32768 ? -32768 : sum > 32767 ? 32767 : sum);
    }
    return narrow;
#endif
}

template <class Activation>
MT_INLINE void to_activations(const int32_t* sums, const float* scale, char* to) {
    int32_t rounded[kOutputGroup];
    scaled(sums, scale, 0.0f, 255.0f, rounded);
    const Short8 left = added(rounded, nullptr), right = added(rounded + 8, nullptr);
    if constexpr (sizeof(Activation) == 2) {
        store(to, left);
        store(to + 16, right);
    } else {
#if defined(__SSE2__)
        store(to, _mm_packus_epi16(reinterpret_cast<__m128i>(left), reinterpret_cast<__m128i>(right)));
#else
        for (int i = 0; i < 8; i++) {
            to[i] = static_cast<char>(left[i]);
            to[i + 8] = static_cast<char>(right[i]);
        }
#endif
    }
}

MT_INLINE void to_stream(const int32_t* sums, const float* scale, const char* stream, char* to) {
    int32_t rounded[kOutputGroup];
    scaled(sums, scale, -32768.0f, 32767.0f, rounded);
    store(to, added(rounded, stream));
    store(to + 16, added(rounded + 8, stream ? stream + 16 : nullptr));
}

// Values below 2^31, rounded in float64 by the same means.
MT_INLINE void to_int32(const int32_t* sums, const float* scale, char* to) {
    int32_t rounded[kOutputGroup];
    for (int i = 0; i < kOutputGroup; i++) {
        const float y = static_cast<float>(sums[i]) * scale[i];
        rounded[i] = static_cast<int32_t>((static_cast<double>(y) + 0x1.8p52) - 0x1.8p52);
    }
    std::memcpy(to, rounded, sizeof rounded);
}

// What lanes of sums become; the AVX-512 files have their own.
template <class Activation>
struct Finish {
    static constexpr int kActivationBytes = sizeof(Activation);
    // kPixels pixels of `groups` groups.
    template <int kPixels, int kGroups>
    static MT_INLINE void put(const ConvRow& row, const int32_t* sums, int64_t first_group, int64_t pixel) {
        const int bytes = row.output == MT_TO_U8 ? kActivationBytes : row.output == MT_TO_S32 ? 4 : 2;
        for (int p = 0; p < kPixels; p++) {
            for (int g = 0; g < kGroups; g++) {
                const int64_t output = (first_group + g) * kOutputGroup;
                const int32_t* from = sums + (p * kGroups + g) * kOutputGroup;
                const float* scale = row.scale + output;
                char* to = row.to + (pixel + p) * row.to_pitch + output * bytes;
                if (row.output == MT_TO_U8) {
                    to_activations<Activation>(from, scale, to);
                } else if (row.output == MT_TO_S32) {
                    to_int32(from, scale, to);
                } else {
                    const bool adds = row.output == MT_TO_S16_ADDED;
                    to_stream(from, scale, adds ? row.stream + (pixel + p) * row.stream_pitch + output * 2 : nullptr, to);
                }
            }
        }
    }
};

// kPixels pixels from `pixel` on, of kGroups groups of outputs: one block of weights.
template <class Products, class Finish, int kPixels, int kGroups>
static void tile(const ConvRow& row, const int32_t* weights, int64_t first_group, int64_t pixel) {
    using Vector = typename Products::Vector;
    constexpr int kVectors = kGroups * kOutputGroup / Products::kLanes;
    const int32_t* bias = row.bias + first_group * kOutputGroup;
    Vector sums[kPixels][kVectors];
    unrolled<kPixels>(MT_EACH(p) {
        unrolled<kVectors>(MT_EACH(v) { sums[p.value][v.value] = load<Vector>(bias + v.value * Products::kLanes); });
    });
    const int64_t pitch = row.pitch, words = row.words;
    for (int tap = 0; tap < row.taps; tap++) {
        if (!row.rows[tap]) {
            weights += words * (kGroups * kOutputGroup);
            continue;
        }
        // An address of x86 is a register, and once or twice another: three pixels share a base.
        const char* bases[(kPixels + 2) / 3];
        unrolled<(kPixels + 2) / 3>(MT_EACH(b) {
            bases[b.value] = row.rows[tap] + (pixel + 3 * b.value) * pitch;
        });
        for (int64_t word = 0; word < words; word++) {
            const auto splat = [&](int p) __attribute__((always_inline)) {
                return Products::splat(bases[p / 3] + (p % 3) * pitch);
            };
            const auto weight = [&](int v) __attribute__((always_inline)) {
                return load<Vector>(weights + v * Products::kLanes);
            };
            const auto add = [&](int p, int v, Vector x, Vector w) __attribute__((always_inline)) {
                sums[p][v] = Products::dot(sums[p][v], x, w);
            };
            // The smaller side of the tile waits in registers for the larger.
            if constexpr (kPixels > kVectors) {
                Vector w[kVectors];
                unrolled<kVectors>(MT_EACH(v) { w[v.value] = weight(v.value); });
                unrolled<kPixels>(MT_EACH(p) {
                    const Vector x = splat(p.value);
                    unrolled<kVectors>(MT_EACH(v) { add(p.value, v.value, x, w[v.value]); });
                });
            } else {
                Vector x[kPixels];
                unrolled<kPixels>(MT_EACH(p) { x[p.value] = splat(p.value); });
                unrolled<kVectors>(MT_EACH(v) {
                    const Vector w = weight(v.value);
                    unrolled<kPixels>(MT_EACH(p) { add(p.value, v.value, x[p.value], w); });
                });
            }
            weights += kGroups * kOutputGroup;
            unrolled<(kPixels + 2) / 3>(MT_EACH(b) { bases[b.value] += 4; });
        }
    }
    alignas(64) int32_t lanes[kPixels * kGroups * kOutputGroup];
    unrolled<kPixels>(MT_EACH(p) {
        unrolled<kVectors>(MT_EACH(v) {
            store(lanes + (p.value * kVectors + v.value) * Products::kLanes, sums[p.value][v.value]);
        });
    });
    Finish::template put<kPixels, kGroups>(row, lanes, first_group, pixel);
}

template <class Products, class Finish, int kGroups>
static void block_row(const ConvRow& row, const int32_t* weights, int64_t first_group) {
    constexpr int kPixels = Products::kPixels, kTail = Products::kTail;
    static_assert(kTail - 1 <= kOverrun && kTail * Products::kTailSteps <= kPixels, "");
    int64_t pixel = 0;
    for (; pixel + kPixels <= row.pixels; pixel += kPixels) {
        tile<Products, Finish, kPixels, kGroups>(row, weights, first_group, pixel);
    }
    const int64_t steps = (row.pixels - pixel + kTail - 1) / kTail;
    if (steps == 0) return;
    if (steps == 1) return tile<Products, Finish, kTail, kGroups>(row, weights, first_group, pixel);
    if constexpr (Products::kTailSteps >= 2) {
        if (steps == 2) return tile<Products, Finish, 2 * kTail, kGroups>(row, weights, first_group, pixel);
    }
    tile<Products, Finish, kPixels, kGroups>(row, weights, first_group, pixel);
}

// Blocks of outputs outside, pixels inside: a block's weights stay in the nearest cache for the whole row.
template <class Products, class Finish>
static void conv_row(const ConvRow& row) {
    constexpr int kGroups = kBlockOutputs / kOutputGroup;
    const int32_t* weights = row.weights;
    for (int64_t group = 0; group < row.groups; group += kGroups) {
        if (group + 1 < row.groups) {
            block_row<Products, Finish, kGroups>(row, weights, group);
        } else {
            block_row<Products, Finish, 1>(row, weights, group);
        }
        weights += row.taps * row.words * kBlockOutputs;
    }
}

// Below 0 and above 255 activation steps nothing is left to round, so that nothing overflows.
template <class Activation>
static void quantize_row(const int16_t* from, int64_t count, void* to) {
    Activation* activations = static_cast<Activation*>(to);
    for (int64_t i = 0; i < count; i++) {
        int16_t s = from[i];
        s = s > 0 ? s : int16_t{0};
        s = s < 4080 ? s : int16_t{4080};
        activations[i] = static_cast<Activation>(static_cast<int16_t>(s + 8) >> 4);
    }
}

}  // namespace MT_ISA
}  // namespace multitok
