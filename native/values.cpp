#include "values.h"

namespace multitok {
namespace {

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// IEEE 754 binary16, also without the instruction for it.
float from_float16(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) return from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    if (magnitude >= 0x0400) return from_bits(sign | ((magnitude << 13) + (112u << 23)));
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -value : value;
}

float from_bfloat16(uint16_t value) { return from_bits(static_cast<uint32_t>(value) << 16); }

template <class To, class From, class Convert>
void read(const void* from, int64_t count, To* to, Convert convert) {
    const From* values = static_cast<const From*>(from);
    for (int64_t i = 0; i < count; i++) to[i] = static_cast<To>(convert(values[i]));
}

template <class To>
void read_as(const void* from, int32_t type, int64_t count, To* to) {
    switch (type) {
        case MT_FLOAT32: return read<To, float>(from, count, to, [](float v) { return v; });
        case MT_FLOAT64: return read<To, double>(from, count, to, [](double v) { return v; });
        case MT_FLOAT16: return read<To, uint16_t>(from, count, to, from_float16);
        case MT_BFLOAT16: return read<To, uint16_t>(from, count, to, from_bfloat16);
        default: return;
    }
}

}  // namespace

int64_t value_bytes(int32_t type) {
    switch (type) {
        case MT_FLOAT32: return 4;
        case MT_FLOAT64: return 8;
        case MT_FLOAT16: case MT_BFLOAT16: return 2;
        default: return 0;
    }
}

void read_floats(const void* from, int32_t type, int64_t count, float* to) { read_as(from, type, count, to); }
void read_doubles(const void* from, int32_t type, int64_t count, double* to) { read_as(from, type, count, to); }

// Bits instead of comparisons: the loops become vector instructions.
bool all_finite(const float* values, int64_t count) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

bool all_finite(const double* values, int64_t count) {
    uint64_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        bad |= (bits & 0x7ff0000000000000u) == 0x7ff0000000000000u;
    }
    return !bad;
}

}  // namespace multitok
