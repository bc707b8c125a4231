// Vectors and codes as the proposing passes read them, with the errors of that form measured.
//
// A pass scores code c for vector x by   s = a . b - h,   largest first, where in real numbers
//     l2       a = (x - m) t,  b = (c - m) t,  h = |b|^2 / 2      since |x - c|^2 t^2 = |a|^2 - 2 s
//     dot      a = x,          b = c t,        h = 0
//     cosine   a = x,          b = c / |c|,    h = 0              (b = 0 for a code of norm 0)
// m is near the codebook's mean, which keeps |b| small where all data lie far from 0; the power of two t brings the
// largest |b| to about 1, so that nothing overflows or underflows for ordinary data.
//
// The pass has rounded values a^, b^, h^ (bfloat16 or float32; h^ always float32) and adds in float32. For all codes,
//     |s~ - s| <= E = |a - a^| max|b| + |a^| max|b - b^| + g (|a^| max|b^| + max h) + tiny
// by Cauchy-Schwarz for the first two terms; g covers the roundings of the sum, of h and of later comparisons, each at
// most g's share of the largest partial sum; tiny covers underflow, also where denormals are flushed. The launch layer
// gives g: (D + 8) u for float32 sums, u = 2^-24. Tensor cores add a few products at once and cut off instead of
// rounding: if each of four products, the sum so far and the result were cut off at 24 bits of the largest, that would
// be 6 (2 u) for 4 dimensions, 3 D u in all. Taken is (8 D + 64) u: NVIDIA documents nothing.
//
// The definition is itself rounded: a code that it prefers can be worse by q (|a| + max|b|)^2 (l2) or q |a| max|b| in
// the units of s, q = (2 D + 8) 2^-52. Hence
//     tolerance = 2 E + that,
// rounded up; infinite where no bound holds (|a| > 1e15), which makes every code a candidate.
//
// Source for the sums of tensor cores: Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores".
#include "definition.cuh"

constexpr double kLargestNorm = 1e15;
constexpr int kWarps = 4;

// Sum over the 32 lanes, in all of them.
__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(MULTITOK_ALL_LANES, value, step);
    return value;
}

// Rounds to the nearest, ties to even; returns what the rounded value stands for.
__device__ __forceinline__ double round_to(double value, float* rounded) {
    *rounded = static_cast<float>(value);
    return *rounded;
}
__device__ __forceinline__ double round_to(double value, bfloat16_bits* rounded) {
    const unsigned bits = __float_as_uint(static_cast<float>(value));
    *rounded = static_cast<bfloat16_bits>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    return __uint_as_float(static_cast<unsigned>(*rounded) << 16);
}

// Squares, summed over a row: of the values, of the rounded values, of their differences.
struct Squares {
    double value = 0, rounded = 0, error = 0;

    template <typename Operand>
    __device__ __forceinline__ void add(double exact, Operand* operand) {
        const double close = round_to(exact, operand);
        value += exact * exact;
        rounded += close * close;
        error += (exact - close) * (exact - close);
    }
    __device__ __forceinline__ void finish() {
        value = warp_sum(value);
        rounded = warp_sum(rounded);
        error = warp_sum(error);
    }
};

// Vectors, one warp each: operands [padded_count, padded_dim] with zeros where there is no value, and tolerances
// [padded_count]. With `rows`, vector i is row rows[i] of `vectors` and `*row_count` says how many there are. The first
// row that holds a NaN or an infinity, counted from `first_row`, lowers `*bad_row`. Of the codebook, from above: norm =
// max |b|, rounded = max |b^|, error = max |b - b^|, half_norm = max h; sum_error = g, definition = q.
template <typename Value, typename Operand>
__global__ void __launch_bounds__(32 * kWarps)
prepare_vectors(const Value* __restrict__ vectors, index_t row_stride, const int* __restrict__ rows,
                const int* __restrict__ row_count, int count, int padded_count, int dim, int padded_dim, int metric,
                const double* __restrict__ centre, double scale, double norm, double rounded, double error,
                double half_norm, double sum_error, double definition, Operand* __restrict__ operands,
                float* __restrict__ tolerances, index_t first_row, index_t* bad_row) {
    const int lane = threadIdx.x & 31;
    const index_t slot = static_cast<index_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (rows) {
        count = *row_count;
        padded_count = min(padded_count, (count + 127) / 128 * 128);
    }
    if (slot >= padded_count) return;
    Operand* out = operands + slot * padded_dim;
    if (slot >= count) {
        for (int d = lane; d < padded_dim; d += 32) out[d] = 0;
        if (lane == 0) tolerances[slot] = 0;
        return;
    }
    const index_t row = rows ? rows[slot] : slot;
    const Value* x = vectors + row * row_stride;
    Squares squares;
    bool finite = true;
    for (int d = lane; d < padded_dim; d += 32) {
        double a = 0;
        if (d < dim) {
            finite = finite && isfinite(x[d]);
            a = (static_cast<double>(x[d]) - centre[d]) * scale;
        }
        squares.add(a, &out[d]);
    }
    squares.finish();
    finite = __ballot_sync(MULTITOK_ALL_LANES, !finite) == 0;
    // A little more than the roots, which covers the roundings of this computation.
    const double length = sqrt(squares.value) * (1 + 1e-6), close = sqrt(squares.rounded) * (1 + 1e-6);
    const double off = sqrt(squares.error) * (1 + 1e-6) + definition * length;
    const double reach = length + norm;
    const double tiny = (padded_dim + 8) * 2.350988701644575e-38;  // 2^-125
    const double proposed = off * norm + close * error + sum_error * (close * rounded + half_norm) + tiny;
    double tolerance = 2 * proposed + definition * (metric == kL2 ? reach * reach : length * norm);
    const bool bounded = length <= kLargestNorm && tolerance <= 1e30;
    if (!bounded) {
        for (int d = lane; d < padded_dim; d += 32) out[d] = 0;
        tolerance = finite ? __uint_as_float(0x7f800000u) : 0.0;
    }
    if (lane == 0) {
        tolerances[slot] = __double2float_ru(tolerance);
        if (!finite) atomicMin(bad_row, first_row + row);
    }
}

// Codes before their scale is known, one thread each: norms [size] by the definition (what cosine divides by), and
// spreads [size] = |c - m|.
template <typename Value>
__global__ void __launch_bounds__(128)
measure_codes(const Value* __restrict__ codes, int size, int dim, const double* __restrict__ centre,
              double* __restrict__ norms, double* __restrict__ spreads, index_t* bad_row) {
    const index_t code = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (code >= size) return;
    const Value* c = codes + code * dim;
    double spread = 0;
    bool finite = true;
    for (int d = 0; d < dim; d++) {
        const double b = static_cast<double>(c[d]) - centre[d];
        spread += b * b;
        finite = finite && isfinite(c[d]);
    }
    norms[code] = __dsqrt_rn(inner_product(c, c, dim));
    spreads[code] = sqrt(spread);
    if (!finite) atomicMin(bad_row, code);
}

// Codes, one warp each: operands [padded_size, padded_dim] with zeros where there is no value, half_norms [padded_size]
// = h^, and 3e38 for codes that are none. bounds [3, size]: |b|, |b^|, |b - b^|, from above.
template <typename Value, typename Operand>
__global__ void __launch_bounds__(32 * kWarps)
prepare_codes(const Value* __restrict__ codes, int size, int padded_size, int dim, int padded_dim, int metric,
              const double* __restrict__ centre, double scale, const double* __restrict__ norms,
              Operand* __restrict__ operands, float* __restrict__ half_norms, double* __restrict__ bounds) {
    const int lane = threadIdx.x & 31;
    const index_t code = static_cast<index_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (code >= padded_size) return;
    Operand* out = operands + code * padded_dim;
    if (code >= size) {
        for (int d = lane; d < padded_dim; d += 32) out[d] = 0;
        if (lane == 0) half_norms[code] = 3e38f;
        return;
    }
    const double norm = metric == kCosine ? norms[code] : 1.0;
    Squares squares;
    for (int d = lane; d < padded_dim; d += 32) {
        double b = 0;
        if (d < dim && norm > 0) b = (static_cast<double>(codes[code * dim + d]) - centre[d]) * scale / norm;
        squares.add(b, &out[d]);
    }
    squares.finish();
    if (lane == 0) {
        const double length = sqrt(squares.value) * (1 + 1e-6);
        half_norms[code] = metric == kL2 ? static_cast<float>(0.5 * squares.value) : 0.0f;
        bounds[code] = length;
        bounds[size + code] = sqrt(squares.rounded) * (1 + 1e-6);
        // b is itself rounded to float64, and so is the norm it is divided by.
        bounds[2LL * size + code] = sqrt(squares.error) * (1 + 1e-6) + (dim + 8) * 2.220446049250313e-16 * length;
    }
}
