// Proposing pass on tensor cores: bfloat16 products, float32 sums, candidates kept in shared memory. sm_80 and newer.
//
// A block takes 64 ROW_WARPS vectors and goes through its part of the codebook in tiles of 64 CODE_WARPS codes, each
// tile in slices of 32 dimensions. A warp multiplies 64 vectors by 64 codes.
//
//                slice  slice  slice            the codes' slices come by cp.async into a ring of three stages:
//                  0      1      2              while one is multiplied, the next two are on their way
//     codes     +------+------+------+
//     (a tile)  |      |      |      |  -> after the last slice the warps hold the tile's scores,
//               +------+------+------+     and look for candidates (candidates.cuh)
//     vectors   +------+------+------+
//               |      |      |      |     RESIDENT: all slices of the vectors stay in shared memory;
//               +------+------+------+     otherwise they come through the ring with the codes (large D)
//
// Sums start at -h, so scores need nothing further. Rows in shared memory are 16 bytes longer than their values, which
// puts the eight rows of an ldmatrix into different banks.
//
// Source for the layout: NVIDIA, CUTLASS (multistage kernels for the Ampere generation).
#include "candidates.cuh"

constexpr int kStages = 3;
constexpr int kSlice = 32;              // dimensions
constexpr int kSlicePitch = kSlice + 8;
constexpr int kSide = 64;               // vectors and codes of a warp
constexpr int kOctet = 8;               // rows of which a warp looks for candidates at once

template <int ROW_WARPS, int CODE_WARPS, bool RESIDENT>
struct Tile {
    static constexpr int kThreads = 32 * ROW_WARPS * CODE_WARPS;
    static constexpr int kRows = kSide * ROW_WARPS;
    static constexpr int kCodes = kSide * CODE_WARPS;
    // A stage: a slice of the codes, of the vectors where they are not resident, and the tile's h.
    static constexpr int kStageRows = kCodes + (RESIDENT ? 0 : kRows);
    static constexpr int kStageBytes = kStageRows * kSlicePitch * 2 + kCodes * 4;
    static constexpr int kScoreBytes = ROW_WARPS * CODE_WARPS * kOctet * kScorePitch<kSide> * 4;
};

// Starts this thread's copies of 32 dimensions of ROWS rows: 16 bytes from `place` on, and more in rows further down.
template <int ROWS, int THREADS>
__device__ __forceinline__ void copy_slice(bfloat16_bits* shared, const bfloat16_bits* place, int padded_dim) {
    static_assert(4 * ROWS % THREADS == 0, "all threads copy the same number of times");
    bfloat16_bits* to = shared + threadIdx.x / 4 * kSlicePitch + 8 * (threadIdx.x % 4);
#pragma unroll
    for (int step = 0; step < 4 * ROWS / THREADS; step++) {
        const int row = step * (THREADS / 4);
        copy_async_16(to + row * kSlicePitch, place + static_cast<index_t>(row) * padded_dim);
    }
}

// What a block copies from global memory, slice by slice, and how far it has come.
template <typename Shape, bool RESIDENT>
struct Fetch {
    const bfloat16_bits* codes;     // this thread's place in the next slice of the codes
    const bfloat16_bits* vectors;   // the same in the vectors, where they come through the ring
    const float* half_norms;        // those of the next slice's tile
    int padded_dim;
    int tiles_left;
    int first_dim = 0;
    int stage = 0;

    __device__ __forceinline__ Fetch(const bfloat16_bits* first_code, const bfloat16_bits* first_vector,
                                     const float* first_half_norm, int dim, int tiles)
        : half_norms(first_half_norm), padded_dim(dim), tiles_left(tiles) {
        const index_t place = static_cast<index_t>(threadIdx.x / 4) * dim + 8 * (threadIdx.x % 4);
        codes = first_code + place;
        vectors = first_vector + place;
    }

    // Starts the copies of the next slice, if there is one, as one group.
    __device__ __forceinline__ void next(unsigned char* stages) {
        if (tiles_left > 0) {
            bfloat16_bits* rows = reinterpret_cast<bfloat16_bits*>(stages + stage * Shape::kStageBytes);
            copy_slice<Shape::kCodes, Shape::kThreads>(rows, codes, padded_dim);
            if (!RESIDENT) {
                copy_slice<Shape::kRows, Shape::kThreads>(rows + Shape::kCodes * kSlicePitch, vectors, padded_dim);
            }
            if (first_dim == 0 && threadIdx.x < Shape::kCodes / 4) {
                float* to = reinterpret_cast<float*>(rows + Shape::kStageRows * kSlicePitch);
                copy_async_16(to + 4 * threadIdx.x, half_norms + 4 * threadIdx.x);
            }
            codes += kSlice;
            vectors += kSlice;
            first_dim += kSlice;
            if (first_dim == padded_dim) {  // on to the next tile, back to the vectors' first slice
                codes += static_cast<index_t>(Shape::kCodes - 1) * padded_dim;
                vectors -= padded_dim;
                half_norms += Shape::kCodes;
                first_dim = 0;
                tiles_left--;
            }
            stage = stage + 1 == kStages ? 0 : stage + 1;
        }
        copy_async_commit();
    }
};

// Waits for the oldest slice under way. Nobody reads the one before it any more then, so its stage may be filled again.
__device__ __forceinline__ void await_slice() {
    copy_async_wait<kStages - 2>();
    __syncthreads();
}

// Sets the warp's sums to the -h of their codes, which came with the tile's first slice.
template <typename Shape>
__device__ __forceinline__ void start_sums(float (&sums)[4][8][4], const unsigned char* stage, int code_warp) {
    const float* h = reinterpret_cast<const float*>(stage + Shape::kStageRows * kSlicePitch * 2);
    h += code_warp * kSide + threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float2 two = *reinterpret_cast<const float2*>(h + 8 * j);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sums[i][j][0] = sums[i][j][2] = -two.x;
            sums[i][j][1] = sums[i][j][3] = -two.y;
        }
    }
}

// sums[i][j] += vectors 16 i .. 16 i + 15 times codes 8 j .. 8 j + 7, over one slice. `vectors` and `codes` point to
// the warp's first row; rows of vectors are `vector_pitch` values apart.
__device__ __forceinline__ void multiply_slice(float (&sums)[4][8][4], const bfloat16_bits* vectors, int vector_pitch,
                                               const bfloat16_bits* codes) {
    const int lane = threadIdx.x & 31;
    // The row that each lane names to ldmatrix: see mma_m16n8k16_bf16 for the order of the tiles.
    const bfloat16_bits* vector_row = vectors + (lane % 16) * vector_pitch + lane / 16 * 8;
    const bfloat16_bits* code_row = codes + (lane / 16 * 8 + lane % 8) * kSlicePitch + lane / 8 % 2 * 8;
#pragma unroll
    for (int d = 0; d < kSlice; d += 16) {
        unsigned rows[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) ldmatrix_x4(rows[i], vector_row + 16 * i * vector_pitch + d);
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            unsigned both[4];
            ldmatrix_x4(both, code_row + 16 * pair * kSlicePitch + d);
            const unsigned even[2] = {both[0], both[1]}, odd[2] = {both[2], both[3]};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                mma_m16n8k16_bf16(sums[i][2 * pair], rows[i], even);
                mma_m16n8k16_bf16(sums[i][2 * pair + 1], rows[i], odd);
            }
        }
    }
}

// Looks for candidates among the warp's 64 x 64 scores, eight rows at a time. `first_list` is that of the warp's first
// row, `scratch` [8, kScorePitch<64>] the warp's own. The rows of octet 2 i + half are 16 i + 8 half and the next
// seven.
__device__ __forceinline__ void collect_tile(const float (&sums)[4][8][4], const CandidateLists& lists, int first_list,
                                             const float* tolerances, float* scratch, int first_code) {
    const int lane = threadIdx.x & 31, group = lane / 4, member = lane % 4;
    unsigned flagged = 0;  // octets in which some row has a candidate
#pragma unroll
    for (int octet = 0; octet < 8; octet++) {
        const int half = 2 * (octet % 2);
        float best = kLowestFloor;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            best = fmaxf(best, fmaxf(sums[octet / 2][j][half], sums[octet / 2][j][half + 1]));
        }
        const bool reached = best >= lists.floors[first_list + 8 * octet + group];
        if (__any_sync(MULTITOK_ALL_LANES, reached)) flagged |= 1u << octet;
    }
    // The same for the whole warp. Scores go through shared memory, since registers cannot be indexed by `octet`.
    while (flagged) {
        const int chosen = __ffs(flagged) - 1;
        flagged &= flagged - 1;
#pragma unroll
        for (int octet = 0; octet < 8; octet++) {
            if (octet != chosen) continue;
            const int half = 2 * (octet % 2);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                *reinterpret_cast<float2*>(scratch + group * kScorePitch<kSide> + 8 * j + 2 * member) =
                    make_float2(sums[octet / 2][j][half], sums[octet / 2][j][half + 1]);
            }
        }
        __syncwarp();
        const int row = 8 * chosen + group;
        collect<kOctet, kSide>(lists, first_list + row, tolerances[row], scratch, first_code);
        __syncwarp();
    }
}

// Candidates of padded vectors. Block (i, j) takes the i-th tile of vectors and the j-th part of the codebook, which is
// tiles_per_part tiles; a part gives CODE_WARPS lists a vector. All counts of rows are padded to whole tiles.
template <int ROW_WARPS, int CODE_WARPS, bool RESIDENT>
__global__ void __launch_bounds__(32 * ROW_WARPS * CODE_WARPS, ROW_WARPS * CODE_WARPS > 4 ? 1 : 2)
nearest_mma(const bfloat16_bits* __restrict__ vectors, const float* __restrict__ tolerances,
            const bfloat16_bits* __restrict__ codes, const float* __restrict__ half_norms, int tiles,
            int tiles_per_part, int padded_dim, int nearest, int capacity, float* __restrict__ list_scores,
            int* __restrict__ list_codes, int* __restrict__ list_counts) {
    using Shape = Tile<ROW_WARPS, CODE_WARPS, RESIDENT>;
    constexpr int kLists = Shape::kRows * CODE_WARPS;
    MULTITOK_DYNAMIC_SHARED(memory);
    unsigned char* stages = memory;
    float* scratch = reinterpret_cast<float*>(stages + kStages * Shape::kStageBytes);
    float* row_tolerances = reinterpret_cast<float*>(stages + kStages * Shape::kStageBytes + Shape::kScoreBytes);
    unsigned char* after = reinterpret_cast<unsigned char*>(row_tolerances + Shape::kRows);
    const CandidateLists lists = candidate_lists(after, kLists, capacity, nearest);
    const int resident_pitch = padded_dim + 8;
    bfloat16_bits* resident = reinterpret_cast<bfloat16_bits*>(lists.counts + kLists);

    const int warp = threadIdx.x / 32;
    const int row_warp = warp / CODE_WARPS, code_warp = warp % CODE_WARPS;
    const index_t first_row = static_cast<index_t>(blockIdx.x) * Shape::kRows;
    const int first_tile = blockIdx.y * tiles_per_part;
    const index_t first_code = static_cast<index_t>(first_tile) * Shape::kCodes;
    const int own_tiles = min(tiles - first_tile, tiles_per_part);
    const bfloat16_bits* block_vectors = vectors + first_row * padded_dim;
    Fetch<Shape, RESIDENT> fetch(codes + first_code * padded_dim, block_vectors, half_norms + first_code, padded_dim,
                                 own_tiles);

    for (int i = threadIdx.x; i < Shape::kRows; i += Shape::kThreads) row_tolerances[i] = tolerances[first_row + i];
    for (int i = threadIdx.x; i < kLists; i += Shape::kThreads) lists.start(i);
    if (RESIDENT) {
        for (int row = warp; row < Shape::kRows; row += Shape::kThreads / 32) {
            for (int d = 8 * (threadIdx.x & 31); d < padded_dim; d += 8 * 32) {
                const index_t place = static_cast<index_t>(row) * padded_dim + d;
                copy_async_16(resident + row * resident_pitch + d, block_vectors + place);
            }
        }
    }
#pragma unroll
    for (int stage = 0; stage < kStages - 1; stage++) fetch.next(stages);

    const int first_list = (code_warp * ROW_WARPS + row_warp) * kSide;
    float* warp_scratch = scratch + warp * kOctet * kScorePitch<kSide>;
    int stage = 0;
    for (int tile = 0; tile < own_tiles; tile++) {
        await_slice();
        float sums[4][8][4];
        start_sums<Shape>(sums, stages + stage * Shape::kStageBytes, code_warp);
        for (int first_dim = 0;;) {
            fetch.next(stages);
            const bfloat16_bits* rows = reinterpret_cast<const bfloat16_bits*>(stages + stage * Shape::kStageBytes);
            const bfloat16_bits* warp_codes = rows + code_warp * kSide * kSlicePitch;
            if (RESIDENT) {
                const bfloat16_bits* warp_vectors = resident + row_warp * kSide * resident_pitch;
                multiply_slice(sums, warp_vectors + first_dim, resident_pitch, warp_codes);
            } else {
                multiply_slice(sums, rows + (Shape::kCodes + row_warp * kSide) * kSlicePitch, kSlicePitch, warp_codes);
            }
            stage = stage + 1 == kStages ? 0 : stage + 1;
            first_dim += kSlice;
            if (first_dim == padded_dim) break;
            await_slice();
        }
        collect_tile(sums, lists, first_list, row_tolerances + row_warp * kSide, warp_scratch,
                     (first_tile + tile) * Shape::kCodes + code_warp * kSide);
    }
    copy_async_wait<0>();
    const Proposals proposals{list_scores, list_codes, list_counts, static_cast<int>(gridDim.y) * CODE_WARPS};
    give(lists, first_list, kSide, proposals, first_row + row_warp * kSide, blockIdx.y * CODE_WARPS + code_warp);
}
