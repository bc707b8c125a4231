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
//   of squares and sums: S = T (1 + t) + e with (1 - u)^(D + 2) <= 1 + t <= (1 + u)^(D + 2), and |e| <= D 2^-125 for
//   what underflows, also where the processor flushes denormals (values and differences flushed from under 2^-126
//   change a square by less than 2^-32 of it or by less than 2^-200). The definition F, in float64 and without
//   underflow or overflow for such values, is T (1 + f), |f| <= (D + 3) 2^-53. If the code of b has F0, T0 and the
//   winner has F <= F0, then T <= T0 (1 + |f|) / (1 - |f|), so the winner has
//       S <= ((1 + u) / (1 - u))^(D + 2) (1 + 3 |f|) (b + |e|) + |e|  <=  b (1 + 2 (D + 3) u) + 3 |e|,   D <= 16.
//   limit(b) = b (1 + 2 (D + 4) u) + D 2^-120, one operation rounded once, is larger than that. It never falls when b
//   grows, so a code that can win is within every limit on the way. If just one code is within the last limit, it is
//   the answer; otherwise all those within it are compared by the definition, lowest index first.
//
//   Overflow. S is then infinite, which only makes it too large. If limit(b) is finite, the winner's S, in arithmetic
//   without end of range, is at most that, so none of its differences, squares and sums, which only grow, overflowed.
//   If it is not, every code is compared by the definition; until the end its place is taken by the largest float, so
//   that empty lanes and boxes, which lie at infinity (x - inf squares to inf, no NaN arises), are never within it.
#include "tree.h"
#include "tree_lanes.h"

namespace multitok {
namespace MT_ISA {

constexpr int64_t kTreeNodes = int64_t{1} << kTreeNodeBits;

template <int kDim>
struct TreeSearch {
    // From 6 dimensions on a vector opens many leaves: it pays to keep it in registers from one to the next. Measured.
    static constexpr bool kMany = kDim >= 6;
    static constexpr float kMost = __FLT_MAX__;

    const TreeBook& tree;
    TreeScratch& scratch;
    mt_statistics& statistics;
    int64_t listed[kTreeLevels];   // entries of each level's list
    const float* values;           // of the vectors searched now
    int64_t stride, count;
    float best[kTreeRows];         // least S so far
    float second[kTreeRows];       // at most the least S of all other codes seen that may lie within the limit
    float limit[kTreeRows];
    uint32_t leaf[kTreeRows];      // where the search starts
    uint32_t slot[kTreeRows];      // place of the code of `best`

    TreeSearch(TreeScratch& memory, const Rows& rows, mt_statistics& counts)
        : tree(memory.tree), scratch(memory), statistics(counts), listed{}, stride(rows.stride) {}

    // One vector, each value in every lane.
    struct Vector {
        Lanes x[kDim];
        MT_INLINE explicit Vector(const float* from) {
#pragma GCC unroll 16
            for (int d = 0; d < kDim; d++) x[d] = splat_from(from + d);
        }
        // Squares of off(d), added in the order of D.
        template <class F>
        static MT_INLINE Lanes sum_squares(F off) {
            Lanes sum = square(off(0));
#pragma GCC unroll 16
            for (int d = 1; d < kDim; d++) sum = add_square(off(d), sum);
            return sum;
        }
        // S of the 16 codes of a leaf.
        MT_INLINE Lanes distances(const float* codes) const {
            return sum_squares([&](int d) { return minus(x[d], load(codes + d * kGroup)); });
        }
        // B of 16 boxes.
        MT_INLINE Lanes bounds(const float* boxes) const {
            return sum_squares([&](int d) {
                const float* low = boxes + 2 * d * kGroup;
                return minus(x[d], clamp(x[d], load(low), load(low + kGroup)));
            });
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

    // Step 1.
    __attribute__((noinline)) void start() {
        const int64_t groups = tree.levels[tree.top].groups;
        const float* boxes = boxes_of(tree.top, 0);
        constexpr int32_t kTags = 31;
        for (int64_t row = 0; row < count; row++) {
            const Vector x = vector(row);
            Words nearest = tagged(words_of(x.bounds(boxes)), splat(kTags), lane_numbers());
            if (groups > 1) {
                const Words tags = plus(lane_numbers(), splat(int32_t{kGroup}));
                nearest = lesser(nearest, tagged(words_of(x.bounds(boxes_of(tree.top, 1))), splat(kTags), tags));
            }
            leaf[row] = static_cast<uint32_t>(least_of(nearest) & kTags);
        }
        for (int64_t level = tree.top - 1; level >= 0; level--) {
            for (int64_t row = 0; row < count; row++) {
                const Lanes bounds = vector(row).bounds(boxes_of(level, leaf[row]));
                const int32_t nearest = least_of(tagged(words_of(bounds), splat(kTags), lane_numbers()));
                leaf[row] = leaf[row] * kGroup + static_cast<uint32_t>(nearest & kTags);
            }
        }
        for (int64_t row = 0; row < count; row++) {
            best[row] = second[row] = __builtin_inff();
            slot[row] = 0;
            settle(row, leaf[row]);
        }
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
        const float exact_limit = limit_of(best[row]);
        limit[row] = exact_limit < kMost ? exact_limit : kMost;
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

    // Step 2. Opens the other children of the node of `level` + 1 that the start went through; at the highest level, of
    // the group given.
    __attribute__((noinline)) void climb(int64_t level, int64_t group) {
        static_assert(kTreeRows * kGroup <= kTreeList, "a list holds what is opened here");
        uint32_t* to = list_of(level);
        int64_t found = 0;
        for (uint32_t row = 0; row < count; row++) {
            const uint32_t child = leaf[row] >> (4 * level), parent = child / kGroup;
            const uint32_t of = level < tree.top ? parent : static_cast<uint32_t>(group);
            uint32_t within = at_most(vector(row).bounds(boxes_of(level, of)), splat(limit[row]));
            within &= ~(static_cast<uint32_t>(of == parent) << child % kGroup);
            found += write_bits(within, row << kTreeNodeBits | of * kGroup, to + found);
        }
        listed[level] = found;
        open(level);
    }

    // The nearest code found by the definition.
    struct Decided {
        double distance = __builtin_inf();
        int32_t code = INT32_MAX;
    };

    MT_INLINE void offer(int64_t row, int64_t place, Decided* decided) const {
        const int32_t code = tree.codes[place];
        const double distance = distance_to(row, place);
        if (distance < decided->distance || (distance == decided->distance && code < decided->code)) {
            decided->distance = distance;
            decided->code = code;
        }
    }

    // Step 3. Offers the codes below one group of boxes that lie within the limit.
    void decide(int64_t row, int64_t level, int64_t group, Decided* decided) const {
        const Vector x = vector(row);
        uint32_t within = at_most(x.bounds(boxes_of(level, group)), splat(limit[row]));
        for (; within; within &= within - 1) {
            const int64_t node = group * kGroup + __builtin_ctz(within);
            if (level > 0) {
                decide(row, level - 1, node, decided);
                continue;
            }
            uint32_t near = at_most(x.distances(codes_of(node)), splat(limit[row]));
            for (; near; near &= near - 1) offer(row, node * kGroup + __builtin_ctz(near), decided);
        }
    }

    // Offers every code, where there is no limit.
    void scan(int64_t row, Decided* decided) const {
        for (int64_t place = 0; place < tree.leaves * kGroup; place++) {
            if (tree.codes[place] >= 0) offer(row, place, decided);
        }
    }

    // As defined: terms in the order of D, each operation rounded to float64 (no contraction in all of the library).
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
        for (int64_t row = 0; row < count; row++) {
            codes[row] = tree.codes[slot[row]];
            if (second[row] > limit[row] && limit[row] < kMost) {
                if (distances) distances[row] = distance_to(row, slot[row]);
                continue;
            }
            Decided decided;
            statistics.decided_double++;
            if (limit[row] < kMost) {
                for (int64_t group = 0; group < tree.levels[tree.top].groups; group++) {
                    decide(row, tree.top, group, &decided);
                }
            } else {
                statistics.scanned++;
                scan(row, &decided);
            }
            codes[row] = decided.code;
            if (distances) distances[row] = decided.distance;
        }
    }

    void search(const float* first, int64_t rows, int32_t* codes, double* distances) {
        values = first;
        count = rows;
        start();
        for (int64_t level = 0; level < tree.top; level++) climb(level, 0);
        for (int64_t group = 0; group < tree.levels[tree.top].groups; group++) climb(tree.top, group);
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
        case 8: return search_tree<8>(rows, results, scratch);
        case 9: return search_tree<9>(rows, results, scratch);
        default: return search_tree<10>(rows, results, scratch);
    }
}

}  // namespace MT_ISA
}  // namespace multitok
