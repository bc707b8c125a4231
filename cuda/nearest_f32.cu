// Proposing pass in float32 on ordinary arithmetic: any card, and a second look at what bfloat16 cannot tell apart.
//
// A block of 256 threads takes 128 vectors and goes through its part of the codebook in tiles of 128 codes, each tile
// in slices of 8 dimensions, which lie in shared memory with one dimension a row. A thread multiplies 8 vectors by 8
// codes:
//
//     codes       4 tx .. 4 tx + 3   and   64 + 4 tx ..           tx = thread % 16
//     vectors     4 ty .. 4 ty + 3   and   64 + 4 ty ..           ty = thread / 16
//
// While a slice is multiplied, the next one comes from global memory into registers, then into the other buffer. Sums
// start at -h, so scores need nothing further. The 16 lanes of equal ty share their rows' candidate lists.
#include "candidates.cuh"

constexpr int kThreads = 256;
constexpr int kSide = 128;               // vectors and codes of a tile
constexpr int kSlice = 8;                // dimensions
constexpr int kPitch = kSide + 4;        // keeps rows aligned to 16 bytes and spreads the transposing stores

struct Buffers {
    float vectors[2][kSlice][kPitch];
    float codes[2][kSlice][kPitch];
    float scores[kThreads / 32][2][kScorePitch<kSide>];
    float tolerances[kSide];
};

// One thread's share of a slice on its way to shared memory: four dimensions of one vector and of one code.
struct Slice {
    float4 vector, code;

    __device__ __forceinline__ void load(const float* vectors, const float* codes) {
        vector = *reinterpret_cast<const float4*>(vectors);
        code = *reinterpret_cast<const float4*>(codes);
    }
    __device__ __forceinline__ void store(Buffers& buffers, int which) const {
        const int row = threadIdx.x / 2, d = 4 * (threadIdx.x % 2);
        const float x[4] = {vector.x, vector.y, vector.z, vector.w}, c[4] = {code.x, code.y, code.z, code.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            buffers.vectors[which][d + i][row] = x[i];
            buffers.codes[which][d + i][row] = c[i];
        }
    }
};

// Eight values of a row of 128: four from `first`, four from 64 + first.
__device__ __forceinline__ void read_eight(const float* row, int first, float (&values)[8]) {
    const float4 low = *reinterpret_cast<const float4*>(row + first);
    const float4 high = *reinterpret_cast<const float4*>(row + 64 + first);
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

// The place in its row of 128 of a thread's i-th value.
__device__ __forceinline__ int place_of(int i, int first) { return i / 4 * 64 + first + i % 4; }

// Looks for candidates among the warp's 16 x 128 scores, two rows at a time.
__device__ __forceinline__ void collect_tile(const float (&sums)[8][8], const CandidateLists& lists,
                                             const float* tolerances, float (*scratch)[kScorePitch<kSide>],
                                             int first_code) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    unsigned flagged = 0;  // numbers i in 0..7 of rows that have a candidate
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float best = sums[i][0];
#pragma unroll
        for (int j = 1; j < 8; j++) best = fmaxf(best, sums[i][j]);
        if (__any_sync(MULTITOK_ALL_LANES, best >= lists.floors[place_of(i, 4 * ty)])) flagged |= 1u << i;
    }
    // The same for the whole warp. Scores go through shared memory, since registers cannot be indexed by `i`.
    while (flagged) {
        const int chosen = __ffs(flagged) - 1;
        flagged &= flagged - 1;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i != chosen) continue;
            float* row = scratch[ty % 2];
            *reinterpret_cast<float4*>(row + 4 * tx) = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
            *reinterpret_cast<float4*>(row + 64 + 4 * tx) = make_float4(sums[i][4], sums[i][5], sums[i][6], sums[i][7]);
        }
        __syncwarp();
        const int row = place_of(chosen, 4 * ty);
        collect<2, kSide>(lists, row, tolerances[row], scratch[0], first_code);
        __syncwarp();
    }
}

// Candidates of padded vectors [.., padded_dim]. Block (i, j) takes the i-th 128 vectors and the j-th part of the
// codebook, which is tiles_per_part tiles of 128 codes. With `row_count`, blocks behind that many vectors do nothing.
__global__ void __launch_bounds__(kThreads, 2)
nearest_f32(const float* __restrict__ vectors, const float* __restrict__ tolerances, const int* __restrict__ row_count,
            const float* __restrict__ codes, const float* __restrict__ half_norms, int tiles, int tiles_per_part,
            int padded_dim, int nearest, int capacity, float* __restrict__ list_scores, int* __restrict__ list_codes,
            int* __restrict__ list_counts) {
    MULTITOK_DYNAMIC_SHARED(memory);
    Buffers& buffers = *reinterpret_cast<Buffers*>(memory);
    const CandidateLists lists = candidate_lists(memory + sizeof(Buffers), kSide, capacity, nearest);
    const index_t first_row = static_cast<index_t>(blockIdx.x) * kSide;
    if (row_count && first_row >= *row_count) return;

    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, warp = threadIdx.x / 32;
    const int first_tile = blockIdx.y * tiles_per_part, tile_end = min(tiles, first_tile + tiles_per_part);
    if (threadIdx.x < kSide) {
        buffers.tolerances[threadIdx.x] = tolerances[first_row + threadIdx.x];
        lists.start(threadIdx.x);
    }
    // Where the thread's next share of a slice comes from.
    const int row = threadIdx.x / 2, part_of_slice = 4 * (threadIdx.x % 2);
    const float* next_vector = vectors + (first_row + row) * padded_dim + part_of_slice;
    const float* next_code = codes + (static_cast<index_t>(first_tile) * kSide + row) * padded_dim + part_of_slice;
    Slice first;
    first.load(next_vector, next_code);
    first.store(buffers, 0);
    __syncthreads();

    int which = 0;
    for (int tile = first_tile; tile < tile_end; tile++) {
        float sums[8][8];
        {
            float h[8];
            read_eight(half_norms + static_cast<index_t>(tile) * kSide, 4 * tx, h);
#pragma unroll
            for (int i = 0; i < 8; i++) {
#pragma unroll
                for (int j = 0; j < 8; j++) sums[i][j] = -h[j];
            }
        }
        for (int left = padded_dim / kSlice; left > 0; left--) {
            if (left > 1) {
                next_vector += kSlice;
                next_code += kSlice;
            } else if (tile + 1 < tile_end) {  // back to the vectors' first slice, on to the next tile's
                next_vector += kSlice - padded_dim;
                next_code += static_cast<index_t>(kSide - 1) * padded_dim + kSlice;
            }  // else there is no next slice, and the last one comes again to no use
            Slice next;
            next.load(next_vector, next_code);
#pragma unroll
            for (int d = 0; d < kSlice; d++) {
                float x[8], c[8];
                read_eight(buffers.vectors[which][d], 4 * ty, x);
                read_eight(buffers.codes[which][d], 4 * tx, c);
#pragma unroll
                for (int i = 0; i < 8; i++) {
#pragma unroll
                    for (int j = 0; j < 8; j++) sums[i][j] = fmaf(x[i], c[j], sums[i][j]);
                }
            }
            which ^= 1;
            next.store(buffers, which);
            __syncthreads();
        }
        collect_tile(sums, lists, buffers.tolerances, buffers.scores[warp], tile * kSide);
    }
    // A warp's 16 rows are in two runs of eight.
    const Proposals proposals{list_scores, list_codes, list_counts, static_cast<int>(gridDim.y)};
    const int run = 8 * warp;
    give(lists, run, 8, proposals, first_row + run, blockIdx.y);
    give(lists, 64 + run, 8, proposals, first_row + 64 + run, blockIdx.y);
}
