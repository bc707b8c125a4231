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
#include "tree.h"
#include "tree_lanes.h"

namespace multitok {
namespace MT_ISA {

constexpr int64_t kTreeNodes = int64_t{1} << kTreeNodeBits;

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
        Lanes x[kDim];
        MT_INLINE explicit Vector(const float* from) {
#pragma GCC unroll 8
            for (int d = 0; d < kDim; d++) x[d] = splat_from(from + d);
        }
        // S of the 16 codes of a leaf.
        MT_INLINE Lanes distances(const float* codes) const {
            Lanes sum;
#pragma GCC unroll 8
            for (int d = 0; d < kDim; d++) {
                const Lanes off = minus(x[d], load(codes + d * kGroup));
                sum = d ? add_square(off, sum) : square(off);
            }
            return sum;
        }
        // B of 16 boxes.
        MT_INLINE Lanes bounds(const float* boxes) const {
            Lanes sum;
#pragma GCC unroll 8
            for (int d = 0; d < kDim; d++) {
                const Lanes low = load(boxes + 2 * d * kGroup);
                const Lanes high = load(boxes + (2 * d + 1) * kGroup);
                const Lanes off = minus(x[d], clamp(x[d], low, high));
                sum = d ? add_square(off, sum) : square(off);
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
            Words tag = lane_numbers(), nearest = splat(INT32_MAX);
            for (int64_t group = 0; group < groups; group++) {
                const Lanes bound = x.bounds(boxes + group * kDim * 2 * kGroup);
                store(bounds + (row * groups + group) * kGroup, bound);
                nearest = lesser(nearest, tagged(words_of(bound), splat(tags), tag));
                tag = plus(tag, splat(int32_t{kGroup}));
            }
            leaf[row] = static_cast<uint32_t>(least_of(nearest) & tags);
            best[row] = second[row] = __builtin_inff();
            slot[row] = 0;
        }
        for (int64_t level = top - 1; level >= 0; level--) {
            for (int64_t row = 0; row < count; row++) {
                const Lanes bound = vector(row).bounds(boxes_of(level, leaf[row]));
                const int32_t nearest = least_of(tagged(words_of(bound), splat(15), lane_numbers()));
                leaf[row] = leaf[row] * kGroup + static_cast<uint32_t>(nearest & 15);
            }
        }
        for (int64_t row = 0; row < count; row++) settle(row, leaf[row]);
        statistics.groups += count;
    }

    // Takes the codes of a leaf into account. Branches would be guessed wrong half of the time, so there are none.
    MT_INLINE void settle(int64_t row, uint32_t at) {
        const Lanes distances = vector(row).distances(codes_of(at));
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
            const uint32_t within = at_most(x.distances(codes_of(node)), splat(limit[row]));
            near[found] = row << kTreeNodeBits | node;
            found += within != 0;
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
        const float* bounds = scratch.bounds.data() + group * kGroup;
        const int64_t groups = top_groups - group;
        uint64_t masks[kTreeRows + 1];
        uint32_t firsts[kTreeRows + 1];
        int64_t some = 0;
        for (uint32_t row = 0; row < count; row++) {
            const Lanes row_limit = splat(limit[row]);
            uint64_t mask = 0;
#pragma GCC unroll 4
            for (int64_t i = kGroupsAtOnce - 1; i >= 0; i--) {
                if (i < groups) mask = mask << 16 | at_most(load(bounds + (row * top_groups + i) * kGroup), row_limit);
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
            const uint64_t next_mask = masks[i + 1];
            const uint32_t next_first = firsts[i + 1];
            to[found++] = first + static_cast<uint32_t>(__builtin_ctzll(mask));
            mask &= mask - 1;
            i += mask == 0;
            const uint64_t used_up = -static_cast<uint64_t>(mask == 0);
            mask |= next_mask & used_up;
            first += (next_first - first) & static_cast<uint32_t>(used_up);
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
            uint32_t near = at_most(x.distances(codes_of(node)), splat(limit[row]));
            for (; near; near &= near - 1) {
                const int64_t place = node * kGroup + __builtin_ctz(near);
                const int32_t candidate = tree.codes[place];
                if (candidate < 0) continue;
                const double exact = distance_to(row, place);
                if (exact < *distance || (exact == *distance && candidate < *code)) {
                    *distance = exact;
                    *code = candidate;
                }
            }
        }
    }

    // As defined: terms in the order of D, each operation rounded to float64 (contraction is off in all of the library).
    MT_INLINE double distance_to(int64_t row, int64_t to) const {
        const float* code = codes_of(to / kGroup) + to % kGroup;
        double sum = 0;
        for (int d = 0; d < kDim; d++) {
            const double off = static_cast<double>(values[row * stride + d]) - static_cast<double>(code[d * kGroup]);
            sum += off * off;
        }
        return sum;
    }

    void finish(int32_t* codes, double* distances) {
        for (int64_t row = 0; row < count; row++) codes[row] = tree.codes[slot[row]];
        for (int64_t row = 0; row < count; row++) {
            const bool decided = second[row] > limit[row];
            if (decided && !distances) continue;
            double distance = __builtin_inf();
            if (decided) {
                distance = distance_to(row, slot[row]);
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
