// The definition of "nearest", in float64: the one place in `cuda/` that evaluates it.
//
// Terms are added one after the other in the order of the axis D. The _rn functions round each operation on its own;
// plain a * b + c would become one fused multiply-add and give other bits than the CPU.
#ifndef MULTITOK_DEFINITION
#define MULTITOK_DEFINITION

#include "primitives.cuh"

// The numbers of native/multitok_codebook.h.
enum Metric { kL2 = 0, kCosine = 1, kDot = 2 };

// sum + (x - c)^2.
__device__ __forceinline__ double add_square(double sum, double x, double c) {
    const double difference = __dsub_rn(x, c);
    return __dadd_rn(sum, __dmul_rn(difference, difference));
}

// sum (x - c)^2, both as the real numbers they are.
template <typename Vector, typename Code>
__device__ __forceinline__ double squared_distance(const Vector* x, const Code* c, int dim) {
    double sum = 0;
#pragma unroll 4
    for (int d = 0; d < dim; d++) {
        sum = add_square(sum, static_cast<double>(x[d]), static_cast<double>(c[d]));
    }
    return sum;
}

// sum x c.
template <typename Vector, typename Code>
__device__ __forceinline__ double inner_product(const Vector* x, const Code* c, int dim) {
    double sum = 0;
#pragma unroll 4
    for (int d = 0; d < dim; d++) {
        sum = __dadd_rn(sum, __dmul_rn(static_cast<double>(x[d]), static_cast<double>(c[d])));
    }
    return sum;
}

// What codes are ranked by, smallest first: sum (x - c)^2, -(sum x c) / |c| (0 for a code of norm 0) or -(sum x c).
// inf - inf, which only float64 values near the end of the range can give, counts as farthest.
template <typename Value>
__device__ __forceinline__ double distance_of(int metric, const Value* x, const Value* c, double code_norm, int dim) {
    double distance;
    if (metric == kL2) {
        distance = squared_distance(x, c, dim);
    } else {
        distance = -inner_product(x, c, dim);
        if (metric == kCosine) distance = code_norm > 0 ? __ddiv_rn(distance, code_norm) : 0.0;
    }
    return distance == distance ? distance : __uint_as_float(0x7f800000u);
}

#endif  // MULTITOK_DEFINITION
