// Reading values of the four types as float32 or float64.
#pragma once

#include <cstdint>
#include <cstring>

#include "multitok_codebook.h"

namespace multitok {

int64_t value_bytes(int32_t type);  // 0 where there is no such type

// `count` contiguous values; float64 is rounded where it goes to float32, everything else is exact.
void read_floats(const void* from, int32_t type, int64_t count, float* to);
void read_doubles(const void* from, int32_t type, int64_t count, double* to);

bool all_finite(const float* values, int64_t count);
bool all_finite(const double* values, int64_t count);

// Row r of a matrix of `type` whose rows are `stride` values apart.
inline const void* row_of(const void* values, int32_t type, int64_t stride, int64_t r) {
    return static_cast<const char*>(values) + r * stride * value_bytes(type);
}

}  // namespace multitok
