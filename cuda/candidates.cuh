// Candidate lists: what a proposing pass keeps of the scores of one vector, in shared memory while it runs.
//
// A score s~ of a code differs from the true one by at most E, and tolerance = 2 E plus what the float64 definition may
// itself be off by (prepare.cu). If k codes have s~ >= m, the k nearest codes all have s~ >= m - tolerance. So a list
// holds every code seen so far with a score of at least
//     floor = (k-th largest score of the list) - tolerance,
// which only rises. When a list is full, its floor is raised and what lies below is dropped; if that frees no room, the
// row has "overflowed": its count becomes capacity + 1 and a later pass looks at it again (decide.cu).
//
// The scores come from a warp's own rows, so that no two warps share a list.
#ifndef MULTITOK_CANDIDATES
#define MULTITOK_CANDIDATES

#include "primitives.cuh"

// First floor. Scores are far above it (prepare.cu bounds them by 1e30), those of padded codes far below.
constexpr float kLowestFloor = -1e38f;
// Distance between rows of a tile of scores, so that the lanes of a warp read from different banks.
template <int CODES>
constexpr int kScorePitch = CODES + 16;

struct CandidateLists {
    float* scores;   // [lists, capacity]
    int* codes;      // [lists, capacity]
    float* floors;   // [lists]
    int* counts;     // [lists]
    int capacity;
    int nearest;     // k

    __device__ __forceinline__ void start(int list) const {
        floors[list] = kLowestFloor;
        counts[list] = 0;
    }
};

// Bytes that `lists` lists take: a multiple of 8.
// (The launch layer computes the same in multitok/codebook/cuda_launch.py.)
__device__ __forceinline__ CandidateLists candidate_lists(unsigned char* memory, int lists, int capacity, int nearest) {
    CandidateLists result;
    result.scores = reinterpret_cast<float*>(memory);
    result.codes = reinterpret_cast<int*>(result.scores + lists * capacity);
    result.floors = reinterpret_cast<float*>(result.codes + lists * capacity);
    result.counts = reinterpret_cast<int*>(result.floors + lists);
    result.capacity = capacity;
    result.nearest = nearest;
    return result;
}

// The LANES lanes that share a list, for the votes of a warp.
template <int LANES>
__device__ __forceinline__ unsigned votes_of_group(bool vote) {
    const int first = (threadIdx.x & 31) & ~(LANES - 1);
    return (__ballot_sync(MULTITOK_ALL_LANES, vote) >> first) & ((1u << LANES) - 1);
}

// Raises the floors of the lists that are `full` and drops what lies below. All lanes of the warp call it together;
// `full`, `count` and `floor` are the same in the LANES lanes of a list.
template <int LANES>
__device__ __forceinline__ void make_room(const CandidateLists& lists, int list, bool full, float tolerance,
                                          int& count, float& floor) {
    const int member = (threadIdx.x & 31) & (LANES - 1);
    float* scores = lists.scores + list * lists.capacity;
    int* codes = lists.codes + list * lists.capacity;
    if (lists.nearest > 1) {
        __syncwarp();  // every lane has read the old floor
        // The k-th largest score is the one with k - 1 before it; equal ones count in the order of the list.
        if (full) {
            for (int entry = member; entry < count; entry += LANES) {
                const float score = scores[entry];
                int before = 0;
                for (int other = 0; other < count; other++) {
                    before += scores[other] > score || (scores[other] == score && other < entry);
                }
                if (before == lists.nearest - 1) lists.floors[list] = fmaxf(floor, score - tolerance);
            }
        }
        __syncwarp();
        if (full) floor = lists.floors[list];
    }
    int kept = 0;
    for (int first = 0; first < lists.capacity; first += LANES) {
        const int entry = first + member;
        float score = 0;
        int code = 0;
        bool keep = full && entry < count;
        if (keep) {
            score = scores[entry];
            code = codes[entry];
            keep = score >= floor;
        }
        const unsigned votes = votes_of_group<LANES>(keep);
        __syncwarp();  // everything is read before anything is overwritten
        if (keep) {
            const int place = kept + __popc(votes & ((1u << member) - 1));
            scores[place] = score;
            codes[place] = code;
        }
        kept += __popc(votes);
    }
    __syncwarp();
    if (full) count = kept;
}

// Adds a tile of scores to the lists of its ROWS rows. The warp's lanes share them out, 32 / ROWS lanes a row, and all
// call this together. `tile` [ROWS, kScorePitch<CODES>] is in shared memory and complete; row r is that of lanes
// r * 32 / ROWS and the ones after it, for which `list` and `tolerance` are given. Score i is that of first_code + i.
template <int ROWS, int CODES>
__device__ __forceinline__ void collect(const CandidateLists& lists, int list, float tolerance, const float* tile,
                                        int first_code) {
    constexpr int LANES = 32 / ROWS;
    constexpr int OWN = CODES / LANES;
    const int member = (threadIdx.x & 31) & (LANES - 1);
    const float* row = tile + (threadIdx.x & 31) / LANES * kScorePitch<CODES>;
    float floor = lists.floors[list];
    int count = lists.counts[list];

    // Own score 4 i + j is number 4 (LANES i + member) + j of the row.
    float own[OWN];
#pragma unroll
    for (int i = 0; i < OWN / 4; i++) {
        const float4 four = reinterpret_cast<const float4*>(row)[LANES * i + member];
        own[4 * i] = four.x;
        own[4 * i + 1] = four.y;
        own[4 * i + 2] = four.z;
        own[4 * i + 3] = four.w;
    }
    if (lists.nearest == 1) {
        // The best score of the tile raises the floor before anything is kept.
        float best = own[0];
#pragma unroll
        for (int i = 1; i < OWN; i++) best = fmaxf(best, own[i]);
#pragma unroll
        for (int step = LANES / 2; step; step /= 2) best = fmaxf(best, __shfl_xor_sync(MULTITOK_ALL_LANES, best, step));
        floor = fmaxf(floor, best - tolerance);
    }
    unsigned wanted = 0;
#pragma unroll
    for (int i = 0; i < OWN; i++) wanted |= (own[i] >= floor ? 1u : 0u) << i;

    // One candidate a lane at a time.
    while (__any_sync(MULTITOK_ALL_LANES, wanted != 0)) {
        bool take = wanted != 0;
        float score = 0;
        int code = 0;
        if (take) {
            const int i = __ffs(wanted) - 1;
            wanted &= wanted - 1;
            const int place = 4 * (LANES * (i / 4) + member) + i % 4;
            score = row[place];
            code = first_code + place;
            take = score >= floor;  // it may have risen
        }
        unsigned votes = votes_of_group<LANES>(take);
        // Not so for a list that has overflowed: nothing reaches its floor.
        const bool full = votes != 0 && count + __popc(votes) > lists.capacity;
        if (__any_sync(MULTITOK_ALL_LANES, full)) {
            make_room<LANES>(lists, list, full, tolerance, count, floor);
            take = take && score >= floor;
            votes = votes_of_group<LANES>(take);
            if (count + __popc(votes) > lists.capacity) {
                count = lists.capacity + 1;
                floor = __uint_as_float(0x7f800000u);  // no score reaches infinity: the row is done with
                take = false;
                votes = 0;
                wanted = 0;
            }
        }
        if (take) {
            const int place = count + __popc(votes & ((1u << member) - 1));
            lists.scores[list * lists.capacity + place] = score;
            lists.codes[list * lists.capacity + place] = code;
        }
        count += __popc(votes);
        __syncwarp();
    }
    __syncwarp();
    if (member == 0) {
        lists.floors[list] = floor;
        lists.counts[list] = count;
    }
    __syncwarp();
}

// What a proposing pass leaves in global memory for decide.cu. A row has one list for each part of the codebook that
// was searched on its own.
struct Proposals {
    float* scores;   // [rows, parts, capacity]
    int* codes;      // [rows, parts, capacity]
    int* counts;     // [rows, parts]: entries of the list, or capacity + 1 where it overflowed
    int parts;
};

// Writes out `rows` lists, from list `first_list` on, as those of the rows from `first_row` on. By one warp, its own.
__device__ __forceinline__ void give(const CandidateLists& lists, int first_list, int rows, const Proposals& proposals,
                                     index_t first_row, int part) {
    const int lane = threadIdx.x & 31;
    for (int row = lane; row < rows; row += 32) {
        proposals.counts[(first_row + row) * proposals.parts + part] = lists.counts[first_list + row];
    }
    for (int i = lane; i < rows * lists.capacity; i += 32) {
        const int row = i / lists.capacity, entry = i - row * lists.capacity;
        if (entry < lists.counts[first_list + row] && lists.counts[first_list + row] <= lists.capacity) {
            const index_t place = ((first_row + row) * proposals.parts + part) * lists.capacity + entry;
            proposals.scores[place] = lists.scores[first_list * lists.capacity + i];
            proposals.codes[place] = lists.codes[first_list * lists.capacity + i];
        }
    }
}

#endif  // MULTITOK_CANDIDATES
