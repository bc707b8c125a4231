// The deciding pass: from the maxima of groups of codes, under a proven slack, to the codes of the definition.
//
// Which groups can hold the answer. Let s be a code's true score (larger is nearer), s~ the proposed one, |s~ - s| <= E
// for every code of a vector, and m the k-th largest maximum of a group's proposed scores. At least k codes have s~ >= m,
// so s >= m - E; each of the k nearest codes has s >= m - E too, hence s~ >= m - 2 E, and so has its group's maximum.
// The groups under m - 2 E ("slack" = 2 E) are done with. Slack also covers that the definition itself is evaluated in
// float64.
//
// Which codes of those groups can. For MT_L2 and float32 values the distances d are taken in float32 in any order:
//     d~ = d (1 + t) + e,  |t| <= g = (D + 3) u / (1 - (D + 3) u),  |e| <= D 2^-125,  u = 2^-24
// (differences, squares and D - 1 sums, each rounded once; e stands for products that underflow, also where denormals
// are flushed). If b is the k-th smallest d~, k codes have d <= (b + e) / (1 - g), so the k nearest have
// d~ <= (b + e) (1 + g) / (1 - g) + e <= b (1 + 2.2 (D + 4) u) + 3 |e| for g < 0.04. That is D < 600,000; above it, for
// float64 values and for other metrics this step is left out. An overflow makes d~ infinite, which only keeps codes in.
//
// What is left is decided by the definition (multitok_codebook.h), lowest index first. `definition` evaluates it,
// for every path but the tree, which has its own over codes in another order (tree_search.h).
#pragma once

#include "lanes.h"
#include "search.h"

namespace multitok {
namespace MT_ISA {

constexpr int64_t kMostNearest = 16;
constexpr double kUnitRoundoff = 0x1p-24;
constexpr int64_t kFloatRefineDim = 500000;

// The nearest codes found so far for one vector, nearest first; ties keep the order in which they came.
struct Nearest {
    int64_t wanted, found = 0;
    double distance[kMostNearest];
    int32_t code[kMostNearest];

    MT_INLINE void offer(double d, int32_t c) {
        int64_t place = found;
        if (found == wanted) {
            if (!(d < distance[found - 1])) return;
            place = found - 1;
        } else {
            found++;
        }
        for (; place > 0 && d < distance[place - 1]; place--) {
            distance[place] = distance[place - 1];
            code[place] = code[place - 1];
        }
        distance[place] = d;
        code[place] = c;
    }
};

// One worker's memory for this pass. A unit is `unit` groups, the codes that share one maximum.
struct DecideScratch {
    Aligned<int32_t> units;   // [16][units] candidates of the vectors that have more than one
    Aligned<float> distances; // [padded V]
    Aligned<double> squares;  // [D] one vector as float64
    int64_t unit = 1, unit_count = 1;

    MT_INLINE void reset(const Book& book, int64_t groups_per_unit) {
        unit = groups_per_unit;
        unit_count = (book.groups + unit - 1) / unit;
        units.reset(16 * unit_count);
        distances.reset((unit_count * unit) * kGroup);
        squares.reset(book.dim);
    }
};

template <int32_t kMetric, class Value>
MT_INLINE void accumulate(const Value* codes, double x, Double8& low, Double8& high) {
    Double8 c_low, c_high;
    if constexpr (sizeof(Value) == 8) {
        c_low = load<Double8>(codes);
        c_high = load<Double8>(codes + 8);
    } else {
        typedef float Float8 __attribute__((vector_size(32)));
        c_low = __builtin_convertvector(load<Float8>(codes), Double8);
        c_high = __builtin_convertvector(load<Float8>(codes + 8), Double8);
    }
    // Compiled without contraction: product and sum are rounded one after the other.
    if constexpr (kMetric == MT_L2) {
        const Double8 a = x - c_low, b = x - c_high;
        low += a * a;
        high += b * b;
    } else {
        low -= x * c_low;
        high -= x * c_high;
    }
}

// Distances of one vector to the 16 codes of one group, as the definition says.
template <class Value>
static void definition(const Book& book, const double* x, const Value* lanes, int64_t group, double* out) {
    const Value* codes = lanes + group * book.dim * kGroup;
    Double8 low{}, high{};
    if (book.metric == MT_L2) {
        for (int64_t d = 0; d < book.dim; d++) accumulate<MT_L2>(codes + d * kGroup, x[d], low, high);
    } else {
        for (int64_t d = 0; d < book.dim; d++) accumulate<MT_DOT>(codes + d * kGroup, x[d], low, high);
    }
    store(out, low);
    store(out + 8, high);
    if (book.metric == MT_L2) return;
    for (int64_t lane = 0; lane < kGroup; lane++) {
        double d = out[lane];
        if (book.metric == MT_COSINE) {
            const double norm = book.norms[group * kGroup + lane];
            d = norm > 0 ? d / norm : 0;
        }
        // inf - inf and inf / inf, which only float64 values near the end of the range can give, count as farthest.
        out[lane] = d == d ? d : __builtin_inf();
    }
}

MT_INLINE void definition_of(const Book& book, const double* x, int64_t group, double* out) {
    if (book.is_double) {
        definition(book, x, book.exact_lanes.data(), group, out);
    } else {
        definition(book, x, book.lanes.data(), group, out);
    }
}

MT_INLINE uint32_t lanes_of(const Book& book, int64_t group) {
    const int64_t left = book.size - group * kGroup;
    return left >= kGroup ? 0xffffu : (1u << left) - 1;
}

// float32 distances of one vector to the codes of one group.
template <int kDim>
MT_INLINE Float16 float_distances(const Book& book, const float* x, int64_t group) {
    const int64_t dim = kDim ? kDim : book.dim;
    const float* codes = book.lanes.data() + group * dim * kGroup;
    Float16 sum[4] = {};
    int64_t d = 0;
    for (; d + 4 <= dim; d += 4) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; i++) {
            const Float16 t = x[d + i] - load<Float16>(codes + (d + i) * kGroup);
            sum[i] = multiply_add(t, t, sum[i]);
        }
    }
    for (; d < dim; d++) {
        const Float16 t = x[d] - load<Float16>(codes + d * kGroup);
        sum[0] = multiply_add(t, t, sum[0]);
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

MT_INLINE float refine_threshold(float best, int64_t dim) {
    const double d = static_cast<double>(dim);
    return static_cast<float>((best * (1 + 2.2 * (d + 4) * kUnitRoundoff) + 4 * d * 0x1p-125) * (1 + 0x1p-22));
}

// Calls f(group) for each group of the listed units, ascending.
template <class F>
MT_INLINE void for_groups(const Book& book, const DecideScratch& scratch, const int32_t* units, int64_t count, F f) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t first = units[i] * scratch.unit;
        const int64_t last = first + scratch.unit < book.groups ? first + scratch.unit : book.groups;
        for (int64_t group = first; group < last; group++) f(group);
    }
}

MT_INLINE void give(const Nearest& nearest, int64_t row, const Results& results) {
    for (int64_t i = 0; i < nearest.wanted; i++) results.codes[row * nearest.wanted + i] = nearest.code[i];
    if (!results.distances) return;
    for (int64_t i = 0; i < nearest.wanted; i++) results.distances[row * nearest.wanted + i] = nearest.distance[i];
}

// Decides one vector among the listed units.
template <int kDim>
static void decide_row(const Book& book, const Rows& rows, int64_t row, const int32_t* units, int64_t count,
                       DecideScratch& scratch, const Results& results) {
    mt_statistics& statistics = *results.statistics;
    const int64_t dim = book.dim;
    const bool refine = book.metric == MT_L2 && !book.is_double && !rows.exact && dim < kFloatRefineDim;
    float* distances = scratch.distances.data();
    float threshold = 0;
    int64_t groups = 0;
    if (refine) {
        const float* x = rows.row(row);
        const float infinity = __builtin_inff();
        Float16 best = splat(infinity);
        for_groups(book, scratch, units, count, [&](int64_t group) {
            Float16 d = float_distances<kDim>(book, x, group);
            const uint32_t valid = lanes_of(book, group);
            if (valid != 0xffffu) {
                float kept[kGroup];
                for (int lane = 0; lane < kGroup; lane++) kept[lane] = valid >> lane & 1 ? d[lane] : infinity;
                d = load<Float16>(kept);
            }
            store(distances + groups++ * kGroup, d);
            best = lane_min(best, d);
        });
        float bound = smallest(best);
        if (results.nearest > 1) {
            Nearest smallest_ones;
            smallest_ones.wanted = results.nearest;
            bound = infinity;
            for (int64_t i = 0; i < groups; i++) {
                uint32_t near = at_most(load<Float16>(distances + i * kGroup), splat(bound));
                for (; near; near &= near - 1) smallest_ones.offer(distances[i * kGroup + __builtin_ctz(near)], 0);
                if (smallest_ones.found < results.nearest) continue;
                bound = static_cast<float>(smallest_ones.distance[smallest_ones.found - 1]);
            }
        }
        threshold = refine_threshold(bound, dim);
        if (results.nearest == 1 && !results.distances) {
            int64_t at = 0, hits = 0, code = 0;
            for_groups(book, scratch, units, count, [&](int64_t group) {
                uint32_t near = at_most(load<Float16>(distances + at++ * kGroup), splat(threshold));
                if (near) {
                    hits += __builtin_popcount(near);
                    code = group * kGroup + __builtin_ctz(near);
                }
            });
            if (hits == 1) {
                results.codes[row] = static_cast<int32_t>(code);
                statistics.groups += groups;
                return;
            }
        }
    }
    double* x = scratch.squares.data();
    for (int64_t d = 0; d < dim; d++) x[d] = rows.exact ? rows.exact_row(row)[d] : rows.row(row)[d];
    Nearest nearest;
    nearest.wanted = results.nearest;
    int64_t at = 0, compared = 0;
    for_groups(book, scratch, units, count, [&](int64_t group) {
        uint32_t near = lanes_of(book, group);
        if (refine) near &= at_most(load<Float16>(distances + at++ * kGroup), splat(threshold));
        if (!near) return;
        double exact[kGroup];
        definition_of(book, x, group, exact);
        compared += __builtin_popcount(near);
        for (; near; near &= near - 1) {
            const int lane = __builtin_ctz(near);
            nearest.offer(exact[lane], static_cast<int32_t>(group * kGroup + lane));
        }
    });
    statistics.groups += refine ? groups : compared / kGroup;
    statistics.decided_double += compared > results.nearest;
    give(nearest, row, results);
}

// A vector whose only candidate is one unit, the common case.
template <int kDim>
MT_INLINE void decide_easy(const Book& book, const Rows& rows, int64_t row, int32_t unit, DecideScratch& scratch,
                           const Results& results) {
    if (scratch.unit == 1 && book.metric == MT_L2 && !book.is_double && !rows.exact && !results.distances &&
        results.nearest == 1 && (unit + 1) * kGroup <= book.size && book.dim < kFloatRefineDim) {
        const Float16 d = float_distances<kDim>(book, rows.row(row), unit);
        const uint32_t near = at_most(d, splat(refine_threshold(smallest(d), book.dim)));
        if (near && (near & (near - 1)) == 0) {
            results.codes[row] = unit * static_cast<int32_t>(kGroup) + __builtin_ctz(near);
            results.statistics->groups++;
            return;
        }
    }
    decide_row<kDim>(book, rows, row, &unit, 1, scratch, results);
}

// Lists every unit as a candidate, and returns how many there are.
MT_INLINE int64_t list_all(DecideScratch& scratch) {
    for (int64_t unit = 0; unit < scratch.unit_count; unit++) scratch.units[unit] = static_cast<int32_t>(unit);
    return scratch.unit_count;
}

// Compares a vector with every code.
static void scan_row(const Book& book, const Rows& rows, int64_t row, DecideScratch& scratch, const Results& results) {
    const int64_t units = list_all(scratch);
    decide_row<0>(book, rows, row, scratch.units.data(), units, scratch, results);
}

// Counts the lanes of `near` and writes `unit` into them.
MT_INLINE void note(uint32_t near, int32_t unit, Int16& hits, Int16& last) {
#if defined(__AVX512F__)
    const auto mask = static_cast<__mmask16>(near);
    const __m512i count = reinterpret_cast<__m512i>(hits);
    hits = reinterpret_cast<Int16>(_mm512_mask_add_epi32(count, mask, count, _mm512_set1_epi32(1)));
    last = reinterpret_cast<Int16>(_mm512_mask_set1_epi32(reinterpret_cast<__m512i>(last), mask, unit));
#else
    if (!near) return;
    alignas(64) int32_t counts[16], units[16];
    __builtin_memcpy(counts, &hits, sizeof hits);
    __builtin_memcpy(units, &last, sizeof last);
    for (; near; near &= near - 1) {
        counts[__builtin_ctz(near)]++;
        units[__builtin_ctz(near)] = unit;
    }
    hits = load<Int16>(counts);
    last = load<Int16>(units);
#endif
}

MT_INLINE Float16 lowest(Float16) { return splat(-__builtin_inff()); }
MT_INLINE Int16 lowest(Int16) { return splat(INT32_MIN); }

// Strikes candidates of a vector from its list and returns how many are left, or 0 and the code where that is proven
// already; this one strikes none. A path that can tell more before float32 distances are taken brings its own.
struct KeepAll {
    static constexpr bool kStrikes = false;
    MT_INLINE int64_t operator()(int64_t, int32_t*, int64_t count, int32_t*) const { return count; }
};

// Decides up to 16 vectors, `first` and the ones after it, from the maxima of their units: unit u of vector i at
// maxima[u * stride + i]. Vectors whose bit in `unbounded` is set are compared with every code. `slack` [16].
template <class Vector, class Score, int kDim, class Strike>
static void decide_lanes(const Book& book, const Rows& rows, int64_t first, int64_t count, const Score* maxima,
                         int64_t stride, Vector slack, uint32_t unbounded, DecideScratch& scratch,
                         const Results& results, Strike& strike) {
    const int64_t units = scratch.unit_count;
    Vector top[kMostNearest];
    const int64_t wanted = results.nearest < units ? results.nearest : units;
    for (int64_t i = 0; i < wanted; i++) top[i] = lowest(Vector{});
    if (wanted == 1) {
        for (int64_t u = 0; u < units; u++) top[0] = lane_max(top[0], load<Vector>(maxima + u * stride));
    } else {
        for (int64_t u = 0; u < units; u++) {
            Vector v = load<Vector>(maxima + u * stride);
            for (int64_t i = 0; i < wanted; i++) {
                const Vector larger = lane_max(top[i], v);
                v = lane_min(top[i], v);
                top[i] = larger;
            }
        }
    }
    const Vector threshold = top[wanted - 1] - slack;
    Int16 hits{}, last{};
    for (int64_t u = 0; u < units; u++) {
        note(at_least(load<Vector>(maxima + u * stride), threshold), static_cast<int32_t>(u), hits, last);
    }
    const uint32_t valid = count >= 16 ? 0xffffu : (1u << count) - 1;
    const uint32_t easy = equal(hits, splat(1)) & valid & ~unbounded;
    for (uint32_t left = easy; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        int32_t unit = last[lane];
        if (Strike::kStrikes && !strike(first + lane, &unit, 1, results.codes + first + lane)) continue;
        decide_easy<kDim>(book, rows, first + lane, unit, scratch, results);
    }
    const uint32_t hard = valid & ~easy & ~unbounded;
    if (hard) {
        int64_t counts[16] = {};
        int32_t* lists = scratch.units.data();
        for (int64_t u = 0; u < units; u++) {
            uint32_t near = at_least(load<Vector>(maxima + u * stride), threshold) & hard;
            for (; near; near &= near - 1) {
                const int lane = __builtin_ctz(near);
                lists[lane * units + counts[lane]++] = static_cast<int32_t>(u);
            }
        }
        for (uint32_t left = hard; left; left &= left - 1) {
            const int lane = __builtin_ctz(left);
            int32_t* list = lists + lane * units;
            const int64_t kept = strike(first + lane, list, counts[lane], results.codes + first + lane);
            if (kept) decide_row<kDim>(book, rows, first + lane, list, kept, scratch, results);
        }
    }
    for (uint32_t left = valid & unbounded; left; left &= left - 1) {
        results.statistics->scanned++;
        scan_row(book, rows, first + __builtin_ctz(left), scratch, results);
    }
}

template <class Vector, class Score, class Strike>
static void decide16(const Book& book, const Rows& rows, int64_t first, int64_t count, const Score* maxima,
                     int64_t stride, Vector slack, uint32_t unbounded, DecideScratch& scratch, const Results& results,
                     Strike& strike) {
    auto* decide = decide_lanes<Vector, Score, 0, Strike>;
    if (book.dim == 4) decide = decide_lanes<Vector, Score, 4, Strike>;
    if (book.dim == 8) decide = decide_lanes<Vector, Score, 8, Strike>;
    decide(book, rows, first, count, maxima, stride, slack, unbounded, scratch, results, strike);
}

template <class Vector, class Score>
static void decide16(const Book& book, const Rows& rows, int64_t first, int64_t count, const Score* maxima,
                     int64_t stride, Vector slack, uint32_t unbounded, DecideScratch& scratch,
                     const Results& results) {
    KeepAll keep_all;
    decide16(book, rows, first, count, maxima, stride, slack, unbounded, scratch, results, keep_all);
}

}  // namespace MT_ISA
}  // namespace multitok
