// From proposed candidates to codes: the float64 definition decides, lowest index on ties. One warp a vector.
//
// The k-th largest proposed score of a vector, less its tolerance, separates what can be among the k nearest from what
// cannot (candidates.cuh). If one code is left and one was asked for, it is certain without another look. A vector with
// an overflowed list or an infinite tolerance is passed on to a more accurate pass; the last pass compares it with
// every code.
//
// float64 is slow on most cards, so where one code was asked for, distances d are first taken in float32 by the whole
// warp. A sum of D terms t in any order, with two roundings in a term, is off by at most
//     e = 1.02 (D + 8) u sum |t| + (D + 8) 2^-125,   u = 2^-24,  D < 250,000
// (the last part: underflow; what the definition itself is off by has room in the 8). A code with d~ - e above the
// smallest d~ + e is not nearest. An overflow makes e infinite or d~ no number, which only keeps the code in.
#include "candidates.cuh"
#include "definition.cuh"

constexpr int kWarps = 4;
constexpr int kNoCode = 0x7fffffff;
constexpr int kLargestFloatDim = 250000;

__device__ __forceinline__ bool before(double distance, int code, double other_distance, int other_code) {
    return distance < other_distance || (distance == other_distance && code < other_code);
}

// The nearest codes found so far, held by a warp: lane r has the r-th nearest.
struct Nearest {
    double distance;
    int code = kNoCode;

    __device__ __forceinline__ Nearest() : distance(__uint_as_float(0x7f800000u)) {}

    // Every lane offers one code, or kNoCode. Codes beyond the k-th nearest may be forgotten.
    __device__ __forceinline__ void offer(double new_distance, int new_code, int nearest) {
        const int lane = threadIdx.x & 31;
        const double last = __shfl_sync(MULTITOK_ALL_LANES, distance, nearest - 1);
        const int last_code = __shfl_sync(MULTITOK_ALL_LANES, code, nearest - 1);
        const bool wanted = new_code != kNoCode && before(new_distance, new_code, last, last_code);
        unsigned left = __ballot_sync(MULTITOK_ALL_LANES, wanted);
        while (left) {
            const int source = __ffs(left) - 1;
            left &= left - 1;
            const double its_distance = __shfl_sync(MULTITOK_ALL_LANES, new_distance, source);
            const int its_code = __shfl_sync(MULTITOK_ALL_LANES, new_code, source);
            // Everything behind its place moves up by one lane.
            const bool stays = before(distance, code, its_distance, its_code);
            const int place = __popc(__ballot_sync(MULTITOK_ALL_LANES, stays));
            const double previous = __shfl_up_sync(MULTITOK_ALL_LANES, distance, 1);
            const int previous_code = __shfl_up_sync(MULTITOK_ALL_LANES, code, 1);
            if (lane >= place) {
                distance = lane == place ? its_distance : previous;
                code = lane == place ? its_code : previous_code;
            }
        }
    }
};

// A vector and the codes it is compared with.
template <typename Value>
struct Comparison {
    const Value* x;
    const Value* codes;
    const double* norms;
    int dim;
    int metric;

    __device__ __forceinline__ double distance(int code) const {
        const Value* c = codes + static_cast<index_t>(code) * dim;
        return distance_of(metric, x, c, metric == kCosine ? norms[code] : 0.0, dim);
    }
    __device__ __forceinline__ bool is_zero() const {
        bool zero = true;
        for (int d = threadIdx.x & 31; d < dim; d += 32) zero = zero && x[d] == 0;
        return __ballot_sync(MULTITOK_ALL_LANES, !zero) == 0;
    }
};

// Bounds of a distance.
struct Bounds {
    double lower, upper;
};

// By the whole warp, in float32. The same in all lanes.
__device__ __forceinline__ Bounds bounds_of(const Comparison<float>& compare, int code) {
    const float* c = compare.codes + static_cast<index_t>(code) * compare.dim;
    float sum = 0, size = 0;
    for (int d = threadIdx.x & 31; d < compare.dim; d += 32) {
        if (compare.metric == kL2) {
            const float difference = compare.x[d] - c[d];
            sum = fmaf(difference, difference, sum);
        } else {
            sum = fmaf(-compare.x[d], c[d], sum);
            size = fmaf(fabsf(compare.x[d]), fabsf(c[d]), size);
        }
    }
#pragma unroll
    for (int step = 16; step; step /= 2) {
        sum += __shfl_xor_sync(MULTITOK_ALL_LANES, sum, step);
        size += __shfl_xor_sync(MULTITOK_ALL_LANES, size, step);
    }
    if (compare.metric == kL2) size = sum;
    const float terms = static_cast<float>(compare.dim + 8);
    const float error = 1.02f * terms * (5.9604645e-8f * size + 2.3509887e-38f);
    double lower = static_cast<double>(sum) - error, upper = static_cast<double>(sum) + error;
    if (compare.metric == kCosine) {
        const double norm = compare.norms[code];
        lower = norm > 0 ? lower / norm : 0.0;
        upper = norm > 0 ? upper / norm : 0.0;
    }
    return {lower, upper};
}
// For float64 values float32 says nothing.
__device__ __forceinline__ Bounds bounds_of(const Comparison<double>&, int) {
    const double infinity = __uint_as_float(0x7f800000u);
    return {-infinity, infinity};
}

// Among all codes.
template <typename Value>
__device__ __forceinline__ Nearest scan(const Comparison<Value>& compare, int size, int nearest) {
    const int lane = threadIdx.x & 31;
    Nearest best;
    if (compare.metric != kL2 && compare.is_zero()) {
        // Every code is equally far from a vector of zeros. Batches are padded with those.
        if (lane < nearest) {
            best.distance = 0;
            best.code = lane;
        }
        return best;
    }
    for (int first = 0; first < size; first += 32) {
        const bool is_code = first + lane < size;
        const double distance = is_code ? compare.distance(first + lane) : 0.0;
        best.offer(distance, is_code ? first + lane : kNoCode, nearest);
    }
    return best;
}

// Codes [count, nearest], nearest first, and their distances, or null. With `rows`, vector i is row rows[i], and
// `*row_count` says how many there are. Vectors that need another look are listed in next_rows [count], counted in
// `*next_count`; where these are null they are compared with every code. statistics [3], or null, counts vectors
// decided in float64, codes compared in float64 for them, and vectors compared with every code.
template <typename Value>
__global__ void __launch_bounds__(32 * kWarps)
decide(const Value* __restrict__ vectors, index_t row_stride, const Value* __restrict__ codes,
       const double* __restrict__ norms, int size, int dim, int metric, int nearest, const int* __restrict__ rows,
       const int* __restrict__ row_count, int count, const float* __restrict__ tolerances,
       const float* __restrict__ list_scores, const int* __restrict__ list_codes, const int* __restrict__ list_counts,
       int parts, int capacity, int* next_rows, int* next_count, index_t* __restrict__ out_codes,
       double* __restrict__ out_distances, unsigned long long* statistics) {
    const int lane = threadIdx.x & 31;
    const index_t slot = static_cast<index_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (rows) count = *row_count;
    if (slot >= count) return;
    const index_t row = rows ? rows[slot] : slot;
    const Comparison<Value> compare{vectors + row * row_stride, codes, norms, dim, metric};
    const float* scores = list_scores + slot * parts * capacity;
    const int* proposed = list_codes + slot * parts * capacity;
    const int* counts = list_counts + slot * parts;
    const float tolerance = tolerances[slot];

    bool certain = isfinite(tolerance);
    for (int part = lane; part < parts; part += 32) certain = certain && counts[part] <= capacity;
    certain = __ballot_sync(MULTITOK_ALL_LANES, !certain) == 0;
    Nearest best;
    if (certain) {
        const int room = parts * capacity;  // entries, used or not
        Nearest top;                        // by score, largest first
        for (int first = 0; first < room; first += 32) {
            const int i = first + lane;
            const bool listed = i < room && i % capacity < counts[i / capacity];
            top.offer(listed ? -static_cast<double>(scores[i]) : 0.0, listed ? proposed[i] : kNoCode, nearest);
        }
        const double last = -__shfl_sync(MULTITOK_ALL_LANES, top.distance, nearest - 1);
        const double floor = last - tolerance;
        const int leader = __shfl_sync(MULTITOK_ALL_LANES, top.code, 0);
        const auto candidate = [&](int i) {
            return i < room && i % capacity < counts[i / capacity] && scores[i] >= floor;
        };
        // Calls use(code) for each candidate, by the whole warp.
        const auto each = [&](auto use) {
            for (int first = 0; first < room; first += 32) {
                unsigned left = __ballot_sync(MULTITOK_ALL_LANES, candidate(first + lane));
                for (; left; left &= left - 1) use(proposed[first + __ffs(left) - 1]);
            }
        };
        unsigned compared = 0;
        for (int first = 0; first < room; first += 32) {
            compared += __popc(__ballot_sync(MULTITOK_ALL_LANES, candidate(first + lane)));
        }
        int only = compared == 1 ? leader : kNoCode;  // the answer, where nothing else can be
        if (nearest == 1 && compared > 1 && dim < kLargestFloatDim && sizeof(Value) == sizeof(float)) {
            double smallest = __uint_as_float(0x7f800000u);
            each([&](int code) { smallest = fmin(smallest, bounds_of(compare, code).upper); });
            int left = 0;
            each([&](int code) {
                if (bounds_of(compare, code).lower > smallest) return;
                left++;
                only = code;
            });
            if (left > 1) only = kNoCode;
        }
        if (nearest == 1 && only != kNoCode) {
            if (lane == 0) {
                out_codes[row] = only;
                if (out_distances) out_distances[row] = compare.distance(only);
            }
            return;
        }
        for (int first = 0; first < room; first += 32) {
            const int code = candidate(first + lane) ? proposed[first + lane] : kNoCode;
            best.offer(code == kNoCode ? 0.0 : compare.distance(code), code, nearest);
        }
        if (statistics && lane == 0) {
            atomicAdd(&statistics[0], 1ull);
            atomicAdd(&statistics[1], static_cast<unsigned long long>(compared));
        }
    } else if (next_rows) {
        if (lane == 0) next_rows[atomicAdd(next_count, 1)] = static_cast<int>(row);
        return;
    } else {
        best = scan(compare, size, nearest);
        if (statistics && lane == 0) {
            atomicAdd(&statistics[0], 1ull);
            atomicAdd(&statistics[2], 1ull);
        }
    }
    if (lane < nearest) {
        out_codes[row * nearest + lane] = best.code;
        if (out_distances) out_distances[row * nearest + lane] = best.distance;
    }
}
