// All levels of residual quantisation of short vectors (D <= 16) in one launch; one level is the plain nearest code.
//
// A thread holds two vectors in registers; the codes of a level come in tiles through shared memory, from where a warp
// reads each as a broadcast. For every group of 8 codes the largest score
//     s~ = a^ . b^ - h^,   a^ = fl(x - m) t,   b^ = fl((c - m) t),   h^ = fl(|b|^2 / 2)
// is found in float32 (m near the mean of the level's codes, t a power of two; prepare.cu explains the score). Kept are
// the best group and the second-best group's score. With u = 2^-24, a the real (x - m) t, and B, B^, F, H bounds of
// |b|, |b^|, |b - b^| and h over the level's codes,
//     |s~ - s| <= E = (D + 8) u (|a^| B^ + H) + |a^| (1.01 u B + F) + tiny
// and codes with s~ < best - tolerance are not nearest, tolerance = 2 E + (2 D + 8) 2^-52 (|a^| + B)^2 (the last term:
// the definition is itself rounded). If the second-best group is below that, one group is left, else all are looked at
// again. A single code left is the answer; several are compared by the definition. Comparisons are written such that a
// NaN or an infinite tolerance keeps a code in.
//
// The next level's x is fl(x - c), as in multitok/quantize/residual.py.
#include "definition.cuh"

constexpr int kThreads = 128;
constexpr int kVectors = 2;     // of a thread
constexpr int kGroup = 8;       // codes that share one maximum
constexpr int kTile = 128;      // codes in shared memory

// A level's codebook. The values lie in arrays shared by the levels, at these places.
struct Level {
    int first;         // first code of the prepared arrays, whose levels are padded to whole tiles with h = 3e38
    int first_value;   // first code of the values as given
    int size;          // V
    int tiles;
    float scale;       // t
    float norm;        // B, from above like the next three
    float rounded;     // B^
    float error;       // F
    float half_norm;   // H
};

template <int DIM>
constexpr int kPitch = (DIM + 3) / 4 * 4;

// -h + a . b.
template <int DIM>
__device__ __forceinline__ float score_of(const float (&a)[DIM], const float* b, float minus_half_norm) {
    float row[kPitch<DIM>];
#pragma unroll
    for (int i = 0; i < kPitch<DIM>; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(b + i);
        row[i] = four.x, row[i + 1] = four.y, row[i + 2] = four.z, row[i + 3] = four.w;
    }
    float score = minus_half_norm;
#pragma unroll
    for (int d = 0; d < DIM; d++) score = fmaf(a[d], row[d], score);
    return score;
}

// The definition, with x in registers.
template <int DIM>
__device__ __forceinline__ double distance_of(const float (&x)[DIM], const float* c) {
    double sum = 0;
#pragma unroll
    for (int d = 0; d < DIM; d++) sum = add_square(sum, static_cast<double>(x[d]), static_cast<double>(c[d]));
    return sum;
}

// What a sweep over a level's codes keeps of one vector.
struct Sweep {
    float best = -3e38f, second = -3e38f;  // of groups
    int group = 0;                         // first code of the best one

    __device__ __forceinline__ void add(float score, int first) {
        second = fmaxf(second, fminf(score, best));
        if (score > best) {
            best = score;
            group = first;
        }
    }
};

template <int DIM>
__device__ __forceinline__ float tolerance_of(const float (&a)[DIM], const Level& level) {
    float square = 0;
#pragma unroll
    for (int d = 0; d < DIM; d++) square = fmaf(a[d], a[d], square);
    const float u = 5.9604645e-8f;  // 2^-24
    const float norm = sqrtf(square) * 1.0001f + 1e-18f;
    const float proposed = (DIM + 8) * u * (norm * level.rounded + level.half_norm) +
                           norm * (1.01f * u * level.norm + level.error) + (DIM + 8) * 2.3509887e-38f;
    const float reach = norm + level.norm;
    return 1.0001f * (2 * proposed + (2 * DIM + 8) * 2.220446e-16f * reach * reach);
}

// The nearest of codes [first, end) whose score reaches `floor`, by the definition where there are several.
template <int DIM>
__device__ __forceinline__ int decide(const float (&x)[DIM], const float (&a)[DIM], const float* codes,
                                      const float* half_norms, const float* values, int first, int end, float floor) {
    int found = 0, only = 0;
    for (int code = first; code < end; code++) {
        if (score_of<DIM>(a, codes + static_cast<index_t>(code) * kPitch<DIM>, -half_norms[code]) < floor) continue;
        if (found++ == 0) only = code;
    }
    if (found == 1) return only;
    int nearest = first;
    double smallest = __uint_as_float(0x7f800000u);
    for (int code = only; code < end; code++) {
        if (score_of<DIM>(a, codes + static_cast<index_t>(code) * kPitch<DIM>, -half_norms[code]) < floor) continue;
        const double distance = distance_of<DIM>(x, values + static_cast<index_t>(code) * DIM);
        if (distance < smallest) {
            smallest = distance;
            nearest = code;
        }
    }
    return nearest;
}

// Codes [count, levels] of vectors [count, DIM]. prepared [codes of all levels, kPitch<DIM>] and half_norms, values
// [codes of all levels, DIM] as given, centres [levels, DIM]. distances [count] of the last level, or null. The first
// vector that holds a NaN or an infinity, or leaves one over, lowers `*bad_row`, counted from `first_row`. statistics
// [1], or null, counts the vectors (for each level) that the groups' scores could not tell apart.
template <int DIM>
__global__ void __launch_bounds__(kThreads, DIM <= 8 ? 4 : 3)
nearest_small(const float* __restrict__ vectors, index_t row_stride, index_t count, const Level* __restrict__ levels,
              int level_count, const float* __restrict__ prepared, const float* __restrict__ half_norms,
              const float* __restrict__ values, const float* __restrict__ centres, index_t* __restrict__ out_codes,
              double* __restrict__ out_distances, index_t first_row, index_t* bad_row,
              unsigned long long* statistics) {
    __shared__ __align__(16) float tile_codes[kTile * kPitch<DIM>];
    __shared__ __align__(16) float tile_half_norms[kTile];
    const index_t first_vector = static_cast<index_t>(blockIdx.x) * (kThreads * kVectors) + threadIdx.x;
    float x[kVectors][DIM];
#pragma unroll
    for (int v = 0; v < kVectors; v++) {
        const index_t vector = first_vector + v * kThreads;
#pragma unroll
        for (int d = 0; d < DIM; d++) x[v][d] = vector < count ? vectors[vector * row_stride + d] : 0.0f;
    }
    for (int l = 0; l < level_count; l++) {
        const Level& level = levels[l];
        const float* codes = prepared + static_cast<index_t>(level.first) * kPitch<DIM>;
        const float* norms = half_norms + level.first;
        const float* level_values = values + static_cast<index_t>(level.first_value) * DIM;
        float a[kVectors][DIM];
        Sweep sweeps[kVectors];
#pragma unroll
        for (int v = 0; v < kVectors; v++) {
            bool finite = true;
#pragma unroll
            for (int d = 0; d < DIM; d++) {
                finite = finite && isfinite(x[v][d]);
                a[v][d] = __fsub_rn(x[v][d], centres[l * DIM + d]) * level.scale;
            }
            if (!finite) atomicMin(bad_row, first_row + first_vector + v * kThreads);
        }
        for (int tile = 0; tile < level.tiles; tile++) {
            __syncthreads();
            for (int i = 4 * threadIdx.x; i < kTile * kPitch<DIM>; i += 4 * kThreads) {
                const index_t from = static_cast<index_t>(tile) * (kTile * kPitch<DIM>) + i;
                *reinterpret_cast<float4*>(tile_codes + i) = *reinterpret_cast<const float4*>(codes + from);
            }
            for (int i = threadIdx.x; i < kTile; i += kThreads) tile_half_norms[i] = -norms[tile * kTile + i];
            __syncthreads();
            for (int first = 0; first < kTile; first += kGroup) {
                float best[kVectors];
#pragma unroll
                for (int i = 0; i < kGroup; i++) {
#pragma unroll
                    for (int v = 0; v < kVectors; v++) {
                        const float score =
                            score_of<DIM>(a[v], tile_codes + (first + i) * kPitch<DIM>, tile_half_norms[first + i]);
                        best[v] = i == 0 ? score : fmaxf(best[v], score);
                    }
                }
#pragma unroll
                for (int v = 0; v < kVectors; v++) sweeps[v].add(best[v], tile * kTile + first);
            }
        }
#pragma unroll
        for (int v = 0; v < kVectors; v++) {
            const index_t vector = first_vector + v * kThreads;
            if (vector >= count) continue;
            const float floor = sweeps[v].best - tolerance_of<DIM>(a[v], level);
            const bool separate = sweeps[v].second < floor;
            const int first = separate ? sweeps[v].group : 0;
            const int end = separate ? min(first + kGroup, level.size) : level.size;
            const int code = decide<DIM>(x[v], a[v], codes, norms, level_values, first, end, floor);
            if (statistics && !separate) atomicAdd(statistics, 1ull);
            out_codes[vector * level_count + l] = code;
            const float* value = level_values + static_cast<index_t>(code) * DIM;
            if (out_distances && l + 1 == level_count) out_distances[vector] = distance_of<DIM>(x[v], value);
#pragma unroll
            for (int d = 0; d < DIM; d++) x[v][d] = __fsub_rn(x[v][d], value[d]);
        }
    }
}
