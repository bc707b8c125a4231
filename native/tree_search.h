// The search of a TreeBook (tree.h), written once and compiled for each instruction set; MT_ISA as lanes.h wants it.
//
// 64 vectors go side by side, one step for all of them after the other, so that the processor works on several at once
// and hardly ever waits for a branch: (1) down to a leaf, always into the nearest box; the nearest of its codes gives
// each vector a limit; (2) up again: of each node passed, the other children whose box is within the limit are opened,
// down to their leaves, and the limit shrinks; (3) near ties are decided by the definition.
//
// Why no answer is lost. All values are float32; u = 2^-24. Let T be the true squared distance of a vector and a code,
// S the one computed here: differences, and squares added by fused operations in the order of D, each rounded once.
//
//   Boxes. A box's bound B is computed by the same operations in the same order from x - clamp(x, low, high) in the
//   place of x - c. For a code in the box |x - clamp(x)| <= |x - c| in every dimension, and each operation, rounded,
//   overflowing or flushed as it may be, is monotone in what is not negative. So B <= S, without any slack, and B of a
//   box <= B of the boxes it holds. What is skipped because B > limit has S > limit.
//
//   Limit. Let b be the least S and let no S overflow. Each term of S carries 2 roundings of a difference and at most D
//   of squares and sums: S = T (1 + t) + e with (1 - u)^(D + 2) <= 1 + t <= (1 + u)^(D + 2) and |e| <= D 2^-125 for what
//   underflows, also where the processor flushes denormals (a difference flushed from under 2^-126 changes its square
//   by less than u of it, or by less than e). The definition F, in float64 and without underflow or overflow for such
//   values, is T (1 + f), |f| <= (D + 3) 2^-53. If the code of b has F0, T0 and the winner has F <= F0, then
//   T <= T0 (1 + |f|) / (1 - |f|), so the winner has
//       S <= ((1 + u) / (1 - u))^(D + 2) (1 + 3 |f|) (b + |e|) + |e|  <=  b (1 + 2 (D + 3) u) + 3 |e|,   D <= 16.
//   limit(b) = b (1 + 2 (D + 4) u) + D 2^-120, one operation rounded once, is larger than that. It never falls when b
//   grows, so a code that can win is within every limit on the way. If just one code is within the last limit, it is
//   the answer; otherwise all those within it are compared by the definition, lowest index first.
//
//   Overflow. S is then infinite, which only makes it too large: if b is finite, the winner's S, in arithmetic without
//   end of range, is at most limit(b). If that is finite, none of the winner's differences, squares and sums, which only
//   grow, overflowed; if it is not, or b is infinite, every code is within the limit, and the definition decides.
//
// Empty lanes and boxes are infinite: x - inf squares to inf, no NaN arises, and a limit lets them in only if infinite.
#include "decide.h"
#include "tree.h"

namespace multitok {
namespace MT_ISA {

constexpr int64_t kTreeNodes = int64_t{1} << kTreeNodeBits;

#if !defined(__AVX512F__)
// Both halves of 16 lanes.
struct Halves {
    __m256 low, high;
};
MT_INLINE Halves halves(Float16 v) {
    Halves h;
    __builtin_memcpy(&h, &v, sizeof v);
    return h;
}
#endif

// a + x * x, rounded once.
MT_INLINE Float16 add_square(Float16 x, Float16 a) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(x, x, a);
#else
    const Halves hx = halves(x), ha = halves(a);
    const Halves sum = {_mm256_fmadd_ps(hx.low, hx.low, ha.low), _mm256_fmadd_ps(hx.high, hx.high, ha.high)};
    Float16 result;
    __builtin_memcpy(&result, &sum, sizeof result);
    return result;
#endif
}

MT_INLINE float least_of(Float16 v) {
#if defined(__AVX512F__)
    const __m256 eight = _mm256_min_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
    const Halves h = halves(v);
    const __m256 eight = _mm256_min_ps(h.low, h.high);
#endif
    __m128 four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_min_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_min_ss(four, _mm_movehdup_ps(four)));
}

MT_INLINE int32_t least_of(Int16 v) {
#if defined(__AVX512F__)
    const __m512i all = reinterpret_cast<__m512i>(v);
    const __m256i eight = _mm256_min_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
#else
    __m256i half[2];
    __builtin_memcpy(half, &v, sizeof v);
    const __m256i eight = _mm256_min_epi32(half[0], half[1]);
#endif
    __m128i four = _mm_min_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_min_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_min_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

// Writes first + i for each bit i of `bits`, and up to 16 values more; returns how many bits there are.
MT_INLINE int64_t write_bits(uint32_t bits, uint32_t first, uint32_t* to) {
    const int64_t count = __builtin_popcount(bits);
#if defined(__AVX512F__)
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i all = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(first)), lanes);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), all));
#else
    for (; bits; bits &= bits - 1) *to++ = first + static_cast<uint32_t>(__builtin_ctz(bits));
#endif
    return count;
}

// The lowest bits of a bound say which box it belongs to: the least of them all names the nearest box, nearly, which is
// near enough for a start.
MT_INLINE Int16 tagged(Float16 bound, Int16 tag, int32_t tag_bits) {
    return (reinterpret_cast<Int16>(bound) & ~tag_bits) | tag;
}
MT_INLINE Int16 lane_numbers() { return Int16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

template <int kDim>
struct TreeSearch {
    // From 6 dimensions on a vector opens many leaves: it pays to keep it in registers from one to the next, and to
    // shrink its limit between the groups of the highest level, rather than to look at 4 groups at once. Measured.
    static constexpr bool kMany = kDim >= 6;
    static constexpr int64_t kGroupsAtOnce = kMany ? 1 : 4;

    const TreeBook& tree;
    TreeScratch& scratch;
    mt_statistics& statistics;
    const int64_t top;             // the highest level
    const int64_t top_groups;
    int64_t listed[kTreeLevels];   // entries of each level's list
    const float* values;           // of the vectors searched now
    int64_t stride, count;
    float best[kTreeRows];         // least S so far
    float second[kTreeRows];       // at most the least S of all other codes seen that may lie within the limit
    float limit[kTreeRows];
    uint32_t leaf[kTreeRows];      // where the search starts
    uint32_t slot[kTreeRows];      // place of the code of `best`

    explicit TreeSearch(TreeScratch& memory, const Rows& rows, mt_statistics& counts)
        : tree(memory.tree),
          scratch(memory),
          statistics(counts),
          top(tree.level_count - 1),
          top_groups(tree.levels[top].groups),
          listed{},
          stride(rows.stride) {}

    struct Vector {
        Float16 x[kDim];
        MT_INLINE explicit Vector(const float* from) {
#pragma GCC unroll 8
            for (int d = 0; d < kDim; d++) x[d] = splat(from[d]);
        }
        // S of the 16 codes of a leaf.
        MT_INLINE Float16 distances(const float* codes) const {
            Float16 sum;
#pragma GCC unroll 8
            for (int d = 0; d < kDim; d++) {
                const Float16 off = x[d] - load<Float16>(codes + d * kGroup);
                sum = d ? add_square(off, sum) : off * off;
            }
            return sum;
        }
        // B of 16 boxes.
        MT_INLINE Float16 bounds(const float* boxes) const {
            Float16 sum;
#pragma GCC unroll 8
            for (int d = 0; d < kDim; d++) {
                const Float16 low = load<Float16>(boxes + 2 * d * kGroup);
                const Float16 high = load<Float16>(boxes + (2 * d + 1) * kGroup);
                const Float16 off = x[d] - lane_min(lane_max(x[d], low), high);
                sum = d ? add_square(off, sum) : off * off;
            }
            return sum;
        }
    };

    MT_INLINE Vector vector(int64_t row) const { return Vector(values + row * stride); }
    MT_INLINE const float* codes_of(int64_t of_leaf) const { return tree.lanes.data() + of_leaf * kDim * kGroup; }
    MT_INLINE const float* boxes_of(int64_t level, int64_t group) const {
        return tree.levels[level].boxes.data() + group * kDim * 2 * kGroup;
    }
    MT_INLINE uint32_t* list_of(int64_t level) const { return scratch.lists.data() + level * (kTreeList + kGroup); }

    static MT_INLINE float limit_of(float distance) {
        return __builtin_fmaf(distance, 1 + (kDim + 4) * 0x1p-23f, kDim * 0x1p-120f);
    }

    // Step 1, the highest level, whose bounds are kept for step 2.
    __attribute__((noinline)) void start() {
        int32_t tags = 15;
        while (tags < top_groups * kGroup) tags = 2 * tags + 1;
        const float* boxes = boxes_of(top, 0);
        const int64_t groups = top_groups;
        float* bounds = scratch.bounds.data();
        for (int64_t row = 0; row < count; row++) {
            const Vector x = vector(row);
            Int16 tag = lane_numbers(), nearest = tag | 0x7fffffff;
            for (int64_t group = 0; group < groups; group++) {
                const Float16 bound = x.bounds(boxes + group * kDim * 2 * kGroup);
                store(bounds + (row * groups + group) * kGroup, bound);
                nearest = lane_min(nearest, tagged(bound, tag, tags));
                tag += 16;
            }
            leaf[row] = static_cast<uint32_t>(least_of(nearest) & tags);
            best[row] = second[row] = __builtin_inff();
            slot[row] = 0;
        }
        for (int64_t level = top - 1; level >= 0; level--) {
            for (int64_t row = 0; row < count; row++) {
                const Float16 bound = vector(row).bounds(boxes_of(level, leaf[row]));
                leaf[row] = leaf[row] * kGroup + (least_of(tagged(bound, lane_numbers(), 15)) & 15);
            }
        }
        for (int64_t row = 0; row < count; row++) settle(row, leaf[row]);
        statistics.groups += count;
    }

    // Takes the codes of a leaf into account. Branches would be guessed wrong half of the time, so there are none.
    MT_INLINE void settle(int64_t row, uint32_t at) {
        const Float16 distances = vector(row).distances(codes_of(at));
        const float least = least_of(distances);
        const uint32_t first = at * kGroup + (static_cast<uint32_t>(__builtin_ctz(at_most(distances, splat(least)))));
        const uint32_t within = at_most(distances, splat(limit_of(least)));
        const float before = best[row];
        const float loser = least < before ? before : least;
        const float other = within & (within - 1) ? least : loser;
        second[row] = other < second[row] ? other : second[row];
        slot[row] = least < before ? first : slot[row];
        best[row] = least < before ? least : before;
        limit[row] = limit_of(best[row]);
    }

    // Calls f(vector, row, node) for the listed nodes of a level, which it takes off the list.
    template <class F>
    MT_INLINE void for_listed(int64_t level, F f) {
        const uint32_t* entries = list_of(level);
        const int64_t entry_count = listed[level];
        listed[level] = 0;
        for (int64_t i = 0; i < entry_count;) {
            const uint32_t row = entries[i] >> kTreeNodeBits;
            const Vector x = vector(row);
            do {
                f(x, row, entries[i] & (kTreeNodes - 1));
                i++;
            } while (kMany && i < entry_count && entries[i] >> kTreeNodeBits == row);
        }
    }

    // The listed leaves: first those that hold a code within the limit are found, then these few are settled, so that
    // no branch depends on a distance.
    __attribute__((noinline)) void open_leaves() {
        statistics.groups += listed[0];
        uint32_t* near = scratch.near.data();
        int64_t found = 0;
        for_listed(0, [&](const Vector& x, uint32_t row, uint32_t node) {
            near[found] = row << kTreeNodeBits | node;
            found += at_most(x.distances(codes_of(node)), splat(limit[row])) != 0;
        });
        for (int64_t i = 0; i < found; i++) settle(near[i] >> kTreeNodeBits, near[i] & (kTreeNodes - 1));
    }

    // Lists the children of a listed node that lie within the limit.
    __attribute__((noinline)) void open_nodes(int64_t level) {
        uint32_t* to = list_of(level - 1);
        int64_t found = listed[level - 1];
        for_listed(level, [&](const Vector& x, uint32_t row, uint32_t node) {
            const uint32_t within = at_most(x.bounds(boxes_of(level - 1, node)), splat(limit[row]));
            found += write_bits(within, row << kTreeNodeBits | node * kGroup, to + found);
            if (found > kTreeList - kGroup) {
                listed[level - 1] = found;
                open(level - 1);
                found = 0;
            }
        });
        listed[level - 1] = found;
    }

    void open(int64_t level) {
        for (; level > 0; level--) open_nodes(level);
        open_leaves();
    }

    // Step 2 under the highest level: the other children of the node of `level` + 1 that the start went through.
    __attribute__((noinline)) void climb(int64_t level) {
        uint32_t* to = list_of(level);
        int64_t found = 0;
        for (uint32_t row = 0; row < count; row++) {
            const uint32_t child = leaf[row] >> (4 * level), parent = child / kGroup;
            uint32_t within = at_most(vector(row).bounds(boxes_of(level, parent)), splat(limit[row]));
            within &= ~(1u << child % kGroup);
            found += write_bits(within, row << kTreeNodeBits | parent * kGroup, to + found);
            if (found > kTreeList - kGroup) {
                listed[level] = found;
                open(level);
                found = 0;
            }
        }
        listed[level] = found;
        open(level);
    }

    // The same at the highest level, whose bounds are known, a few groups at a time.
    __attribute__((noinline)) void sweep(int64_t group) {
        const float* bounds = scratch.bounds.data();
        const int64_t groups = top_groups - group < kGroupsAtOnce ? top_groups - group : kGroupsAtOnce;
        uint64_t masks[kTreeRows + 1];
        uint32_t firsts[kTreeRows + 1];
        int64_t some = 0;
        for (uint32_t row = 0; row < count; row++) {
            const Float16 row_limit = splat(limit[row]);
            uint64_t mask = 0;
            for (int64_t i = groups - 1; i >= 0; i--) {
                mask = mask << 16 | at_most(load<Float16>(bounds + (row * top_groups + group + i) * kGroup), row_limit);
            }
            const uint64_t started = (leaf[row] >> (4 * top)) - group * kGroup;
            mask &= ~(started < 64 ? uint64_t{1} << started : 0);
            masks[some] = mask;
            firsts[some] = row << kTreeNodeBits | static_cast<uint32_t>(group * kGroup);
            some += mask != 0;
        }
        if (some == 0) return;
        // One entry a turn, from this vector's mask or, if that is used up, from the next one's: no branch to guess.
        masks[some] = 0;
        firsts[some] = 0;
        uint32_t* to = list_of(top);
        int64_t found = 0;
        uint64_t mask = masks[0];
        uint32_t first = firsts[0];
        for (int64_t i = 0; i < some;) {
            to[found++] = first + static_cast<uint32_t>(__builtin_ctzll(mask));
            mask &= mask - 1;
            i += mask == 0;
            first = mask ? first : firsts[i];
            mask = mask ? mask : masks[i];
            if (found == kTreeList) {
                listed[top] = found;
                open(top);
                found = 0;
            }
        }
        listed[top] = found;
        open(top);
    }

    // Step 3. Compares, by the definition, the codes below one group of boxes that lie within the limit.
    void decide(int64_t row, int64_t level, int64_t group, double* distance, int32_t* code) {
        const Vector x = vector(row);
        uint32_t within = at_most(x.bounds(boxes_of(level, group)), splat(limit[row]));
        for (; within; within &= within - 1) {
            const int64_t node = group * kGroup + __builtin_ctz(within);
            if (level > 0) {
                decide(row, level - 1, node, distance, code);
                continue;
            }
            if (node >= tree.leaves) continue;
            double exact[kGroup];
            define(row, node, exact);
            uint32_t near = at_most(x.distances(codes_of(node)), splat(limit[row]));
            for (; near; near &= near - 1) {
                const int lane = __builtin_ctz(near);
                const int32_t candidate = tree.codes[node * kGroup + lane];
                if (candidate < 0) continue;
                if (exact[lane] < *distance || (exact[lane] == *distance && candidate < *code)) {
                    *distance = exact[lane];
                    *code = candidate;
                }
            }
        }
    }

    MT_INLINE void define(int64_t row, int64_t of_leaf, double* exact) const {
        Double8 low{}, high{};
        for (int d = 0; d < kDim; d++) {
            accumulate<MT_L2>(codes_of(of_leaf) + d * kGroup, static_cast<double>(values[row * stride + d]), low, high);
        }
        store(exact, low);
        store(exact + 8, high);
    }

    void finish(int32_t* codes, double* distances) {
        for (int64_t row = 0; row < count; row++) codes[row] = tree.codes[slot[row]];
        for (int64_t row = 0; row < count; row++) {
            const bool decided = second[row] > limit[row];
            if (decided && !distances) continue;
            double distance = __builtin_inf();
            if (decided) {
                double exact[kGroup];
                define(row, slot[row] / kGroup, exact);
                distance = exact[slot[row] % kGroup];
            } else {
                statistics.decided_double++;
                statistics.scanned += limit[row] == __builtin_inff();
                codes[row] = INT32_MAX;
                for (int64_t group = 0; group < top_groups; group++) decide(row, top, group, &distance, codes + row);
            }
            if (distances) distances[row] = distance;
        }
    }

    void search(const float* first, int64_t rows, int32_t* codes, double* distances) {
        values = first;
        count = rows;
        start();
        for (int64_t level = 0; level < top; level++) climb(level);
        for (int64_t group = 0; group < top_groups; group += kGroupsAtOnce) sweep(group);
        finish(codes, distances);
    }
};

template <int kDim>
static void search_tree(const Rows& rows, const Results& results, TreeScratch& scratch) {
    TreeSearch<kDim> search(scratch, rows, *results.statistics);
    for (int64_t first = 0; first < rows.count; first += kTreeRows) {
        const int64_t count = rows.count - first < kTreeRows ? rows.count - first : kTreeRows;
        search.search(rows.values + first * rows.stride, count, results.codes + first,
                      results.distances ? results.distances + first : nullptr);
    }
}

static void search_tree_of(const Book& book, const Rows& rows, const Results& results, Scratch& memory) {
    TreeScratch& scratch = static_cast<TreeScratch&>(memory);
    switch (book.dim) {
        case 1: return search_tree<1>(rows, results, scratch);
        case 2: return search_tree<2>(rows, results, scratch);
        case 3: return search_tree<3>(rows, results, scratch);
        case 4: return search_tree<4>(rows, results, scratch);
        case 5: return search_tree<5>(rows, results, scratch);
        case 6: return search_tree<6>(rows, results, scratch);
        case 7: return search_tree<7>(rows, results, scratch);
        default: return search_tree<8>(rows, results, scratch);
    }
}

}  // namespace MT_ISA
}  // namespace multitok
