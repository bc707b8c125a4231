// The proposing pass on integer products: int16 pairs, or int8 fours against unsigned bytes.
//
// N vectors, V codes, D dimensions. With the codebook's centre subtracted (MT_L2), a = x - centre and b = c - centre, the
// score s = a.b - |b|^2 / 2 is largest where the distance is smallest, for |x - c|^2 = |a|^2 - 2 s. For MT_DOT and
// MT_COSINE b is the code, or the code over its norm, and there is no second term.
//
// a and b are rounded to integers: a^ = p A, b^ = q B, with integer vectors A, B and steps p (one for a block of vectors)
// and q (one for the codebook). The pass computes, in integers and so without any rounding,
//     S = A.B - H,   H = the integer nearest to |b|^2 / (2 p q) as float32 gives it.
// In units of p q, with r = |a / p - A| and e >= |b - b^| / q for every code:
//     |s / (p q) - S| <= r max|b|/q + |A| e + w,
// by Cauchy-Schwarz on  a.b - a^.b^ = (a - a^).b + a^.(b - b^);  w = 1/2 + 2^-22 max H covers H's rounding (to integer,
// and three roundings in float32). r is computed from y = fl(fl(x - centre) / p), which is off by at most 2.1 u |y| as a
// vector (u = 2^-24), so r <= |y - A| + 2.1 u |y|; y - A is exact, as both lie within 1/2. The norms |y - A| and |A| are
// float32 sums of D squares, hence a factor 1 + (D + 8) u and, for squares that underflow, D 2^-125 inside the root.
// The definition is evaluated in float64 with a relative error below (2 D + 8) 2^-53 of (|a| + |b|)^2, the error of |c|
// and the division for MT_COSINE included; twice that, in the same units, is added. Twice the sum is the slack of
// decide.h, rounded up.
//
// No overflow: p and q are such that |A||B| and H stay below 2^29 each plus the rounding of A and B (int16: norms of
// 22,900 + sqrt(D) / 2, D <= 2^20), so every partial sum is below 2^31, and S - slack too while slack < 2^30 - 2^24. For int8 it
// is the components that are bounded, by 127; |A.B| <= D 127^2, which 2^29 bounds to D <= 2^15.
// Vectors for which this cannot hold (a component of 1e18 and more, too much slack) are compared with every code.
#pragma once

#include "decide.h"

namespace multitok {
namespace MT_ISA {

constexpr double kIntegerNorm = 22900;
constexpr float kLargestValue = 1e18f;
constexpr float kMostSlack = 0x1p30f - 0x1p24f;
// Cache that the maxima and the turned values of one block may take, and the most tiles of a block.
constexpr int64_t kMaximaBytes = 192 << 10;
constexpr int64_t kTurnedBytes = 256 << 10;
constexpr int64_t kMostTiles = 16;
// Bytes of codes that all tiles of a block go through before the next ones: half of a 1 MB second-level cache.
constexpr int64_t kCodeBytes = 256 << 10;
// Groups that share one maximum are as many as keep the number of maxima below this.
constexpr int64_t kMostUnits = 512;

inline int64_t groups_per_unit(const Book& book) {
    int64_t unit = 1;
    while ((book.groups + unit - 1) / unit > kMostUnits) unit *= 2;
    return unit;
}

// Dot: one instruction set's integer products.
//     Vector                      kLanes int32 sums, one vector of the block a lane
//     static Vector splat(int32_t), load, store, largest(a, b)
//     static Vector dot(sum, x, c)  sum + the products of the values in each 32-bit word of x and c
//     kPerWord, kLanes, kCodes (codes at once), kVectors (Vectors at once, a tile)
template <class Dot>
struct IntegerScratch final : Scratch {
    DecideScratch decide;
    Aligned<int32_t> tiles;    // [tiles][words][tile lanes]
    Aligned<int32_t> maxima;   // [tiles][units][tile lanes]
    Aligned<int32_t> bias;     // [padded V] -H + offset
    Aligned<int32_t> slack;    // [lanes of all tiles]
    Aligned<float> turned;     // [batches of 16 vectors][D][16]
    double bias_step = 0;      // p of `bias`
};

template <class Dot>
constexpr int64_t kTileLanes = Dot::kLanes * Dot::kVectors;

template <class Dot>
static int64_t tiles_per_block(const Book& book) {
    const int64_t unit = groups_per_unit(book), units = (book.groups + unit - 1) / unit;
    const int64_t by_maxima = kMaximaBytes / (units * kTileLanes<Dot> * 4);
    const int64_t by_values = kTurnedBytes / (book.dim * kTileLanes<Dot> * 4);
    const int64_t tiles = by_maxima < by_values ? by_maxima : by_values;
    return tiles < 1 ? 1 : tiles > kMostTiles ? kMostTiles : tiles;
}

// Maxima of `count` codes for kVectors * kLanes vectors.
template <class Dot, int kCodes, int kVectors, int kWords>
MT_INLINE void unit_maxima(const int32_t* x, const int32_t* codes, const int32_t* bias, int64_t words_given,
                           int64_t count, typename Dot::Vector (&best)[kVectors]) {
    using Vector = typename Dot::Vector;
    const int64_t words = kWords ? kWords : words_given;
    for (int64_t k = 0; k < count; k += kCodes) {
        Vector sum[kCodes][kVectors];
        unrolled<kCodes>(MT_EACH(r) {
            const Vector start = Dot::splat(bias[k + r.value]);
            unrolled<kVectors>(MT_EACH(j) { sum[r.value][j.value] = start; });
        });
        const int32_t* c = codes + k * words;
        for (int64_t w = 0; w < words; w++) {
            Vector v[kVectors];
            unrolled<kVectors>(MT_EACH(j) { v[j.value] = Dot::load(x + (w * kVectors + j.value) * Dot::kLanes); });
            unrolled<kCodes>(MT_EACH(r) {
                const Vector code = Dot::splat(c[r.value * words + w]);
                unrolled<kVectors>(MT_EACH(j) {
                    sum[r.value][j.value] = Dot::dot(sum[r.value][j.value], v[j.value], code);
                });
            });
        }
        unrolled<kVectors>(MT_EACH(j) {
            // A tree, so that the comparisons do not wait for one another.
            Vector top[kCodes];
            unrolled<kCodes>(MT_EACH(r) { top[r.value] = sum[r.value][j.value]; });
            if constexpr (kCodes >= 16) {
                unrolled<8>(MT_EACH(r) { top[r.value] = Dot::largest(top[r.value], top[r.value + 8]); });
            }
            if constexpr (kCodes >= 8) {
                unrolled<4>(MT_EACH(r) { top[r.value] = Dot::largest(top[r.value], top[r.value + 4]); });
            }
            unrolled<2>(MT_EACH(r) { top[r.value] = Dot::largest(top[r.value], top[r.value + 2]); });
            best[j.value] = Dot::largest(best[j.value], Dot::largest(top[0], top[1]));
        });
    }
}

template <class Dot, int kCodes, int kVectors, int kWords>
__attribute__((noinline)) static void tile_maxima(const Book& book, const IntegerCodes& integers, const int32_t* x, const int32_t* bias,
                        int64_t unit, int64_t first_unit, int64_t last_unit, int32_t* maxima, int64_t stride) {
    const int64_t words = kWords ? kWords : integers.words;
    for (int64_t u = first_unit; u < last_unit; u++) {
        const int64_t first = u * unit * kGroup;
        const int64_t left = book.padded() - first, count = left < unit * kGroup ? left : unit * kGroup;
        typename Dot::Vector best[kVectors];
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; j++) best[j] = Dot::splat(INT32_MIN);
        unit_maxima<Dot, kCodes, kVectors, kWords>(x, integers.codes.data() + first * words, bias + first, words, count,
                                                   best);
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; j++) Dot::store(maxima + u * stride + j * Dot::kLanes, best[j]);
    }
}

template <class Dot, int kCodes, int kVectors>
static void tile_maxima_of(const Book& book, const IntegerCodes& integers, const int32_t* x, const int32_t* bias,
                           int64_t unit, int64_t first_unit, int64_t last_unit, int32_t* maxima, int64_t stride) {
    switch (integers.words) {
        case 1: return tile_maxima<Dot, kCodes, kVectors, 1>(book, integers, x, bias, unit, first_unit, last_unit, maxima, stride);
        case 2: return tile_maxima<Dot, kCodes, kVectors, 2>(book, integers, x, bias, unit, first_unit, last_unit, maxima, stride);
        case 4: return tile_maxima<Dot, kCodes, kVectors, 4>(book, integers, x, bias, unit, first_unit, last_unit, maxima, stride);
        default: return tile_maxima<Dot, kCodes, kVectors, 0>(book, integers, x, bias, unit, first_unit, last_unit, maxima, stride);
    }
}

// Largest |x - centre|^2 and |x_d - centre_d| of each lane so far, over vectors whose values are small enough.
struct Reach {
    Float16 square{}, value{};
};

// The constants of the bound for one block of vectors, see the top of this file.
struct Bound {
    double p;              // step of the vectors
    float inverse;         // 1 / p, exactly
    float code_norm;       // max |b| / q
    float code_error;      // e
    float constant;        // w and the definition's own rounding
    float factor;          // 1 + (D + 8) u and the roundings of the bound's evaluation
    float underflow;       // D 2^-125
};

static Bound make_bound(const Book& book, const IntegerCodes& integers, const Reach& reach) {
    const double q = integers.step, dim = static_cast<double>(book.dim), norm = book.largest_norm;
    float square = 0, largest_value = 0;
    for (int lane = 0; lane < 16; lane++) {
        square = reach.square[lane] > square ? reach.square[lane] : square;
        largest_value = reach.value[lane] > largest_value ? reach.value[lane] : largest_value;
    }
    const double largest_norm = __builtin_sqrt((square + dim * 0x1p-125) * (1 + (dim + 8) * 0x1p-23));
    const bool has_half_norm = book.metric == MT_L2;
    double p;
    if (integers.per_word == 2) {
        p = (has_half_norm && norm / 2 > largest_norm ? norm / 2 : largest_norm) / kIntegerNorm;
    } else {
        p = largest_value / 127;
        const double least = has_half_norm ? norm * norm / 2 / q / 0x1p29 : 0;
        p = p > least ? p : least;
    }
    const double smallest_step = 1e-30;
    Bound bound;
    bound.inverse = static_cast<float>(1 / (p > smallest_step ? p : smallest_step) * (1 - 0x1p-22));
    bound.p = p = 1 / static_cast<double>(bound.inverse);
    const double largest_square = (largest_norm + norm) * (largest_norm + norm) / (p * q);
    const double most_half = has_half_norm ? norm * norm / 2 / (p * q) : 0;
    bound.code_norm = static_cast<float>(norm / q * (1 + 0x1p-20));
    bound.code_error = static_cast<float>(integers.largest_error / q * (1 + 0x1p-20));
    bound.constant = static_cast<float>(1 + 0x1p-22 * most_half + 2 * (2 * dim + 8) * 0x1p-53 * largest_square);
    bound.factor = static_cast<float>(1 + (dim + 16) * 0x1p-23);
    bound.underflow = static_cast<float>(dim * 0x1p-125);
    return bound;
}

// Reads 16 vectors, subtracts the centre and turns them so that a lane is a vector: [D rounded up to 16][16]. `count`
// of the 16 are there, the others repeat the first.
MT_INLINE void turn(const Book& book, const Rows& rows, int64_t first, int64_t count, float* turned, Reach& reach) {
    Float16 squares{}, value{};
    for (int64_t d = 0; d < book.dim; d += 16) {
        const int64_t left = book.dim - d;
        const Float16 centre = load_first(rows.centre + d, left);
        Float16 block[16];
#pragma GCC unroll 16
        for (int64_t i = 0; i < 16; i++) block[i] = load_first(rows.row(first + (i < count ? i : 0)) + d, left) - centre;
        transpose(block);
        for (int64_t i = 0; i < 16 && i < left; i++) {
            store(turned + (d + i) * 16, block[i]);
            squares = multiply_add(block[i], block[i], squares);
            value = lane_max(value, lane_max(block[i], -block[i]));
        }
    }
    if (at_least(value, splat(kLargestValue))) {
        float kept_squares[16], kept[16];
        for (int lane = 0; lane < 16; lane++) {
            kept_squares[lane] = value[lane] < kLargestValue ? squares[lane] : 0;
            kept[lane] = value[lane] < kLargestValue ? value[lane] : 0;
        }
        squares = load<Float16>(kept_squares);
        value = load<Float16>(kept);
    }
    reach.square = lane_max(reach.square, squares);
    reach.value = lane_max(reach.value, value);
}

// Twice the bound of one vector, in integers, from |y - A|^2, |A|^2 and |y|^2.
MT_INLINE float slack_of(const Bound& bound, float left_over, float norm, float square) {
    const float r = __builtin_sqrtf(left_over + bound.underflow) + 1.3e-7f * __builtin_sqrtf(square + bound.underflow);
    const float error = r * bound.code_norm + __builtin_sqrtf(norm) * bound.code_error;
    return 2 * bound.factor * (error + bound.constant) + 4;
}

// Rounds 16 turned vectors to integers, into words at `stride` lanes; gives their slack, and the bits of those for
// which no bound holds.
template <class Dot>
static uint32_t pack(const Book& book, const float* turned, const Bound& bound, int32_t* words, int64_t stride,
                     int32_t* slack) {
    constexpr int kPerWord = Dot::kPerWord;
    const Float16 inverse = splat(bound.inverse);
    Float16 left_over{}, norm{}, square{}, top{};
    for (int64_t d = 0, w = 0; d < book.dim; d += kPerWord, w++) {
        Int16 word{};
        for (int i = 0; i < kPerWord && d + i < book.dim; i++) {
            const Float16 y = load<Float16>(turned + (d + i) * 16) * inverse;
            top = lane_max(top, lane_max(y, -y));
            const Int16 rounded = round_to_int(lane_max(lane_min(y, splat(Dot::kMost)), splat(-Dot::kMost)));
            const Float16 back = to_float(rounded);
            const Float16 off = y - back;
            left_over = multiply_add(off, off, left_over);
            norm = multiply_add(back, back, norm);
            square = multiply_add(y, y, square);
            word = Dot::place(word, rounded, i);
        }
        store(words + w * stride, word);
    }
    // A value beyond the range of the integers belongs to a vector that was left out when the step was chosen.
    const uint32_t inside = at_most(top, splat(Dot::kMost));
    uint32_t unbounded = 0;
    alignas(64) int32_t result[16];
    for (int lane = 0; lane < 16; lane++) {
        const float twice = slack_of(bound, left_over[lane], norm[lane], square[lane]);
        const bool holds = (inside >> lane & 1) && twice < kMostSlack;
        unbounded |= static_cast<uint32_t>(!holds) << lane;
        result[lane] = holds ? static_cast<int32_t>(twice) : 0;
    }
    __builtin_memcpy(slack, result, sizeof result);
    return unbounded;
}

// bias = -H + offset for step p; padded codes score lowest.
static void make_bias(const Book& book, const IntegerCodes& integers, double p, int32_t* bias) {
    const Float16 scale = splat(static_cast<float>(-1 / (p * integers.step)));
    for (int64_t k = 0; k < book.padded(); k += 16) {
        const Float16 h = k + 16 <= book.size ? load<Float16>(book.half_norm.data() + k) : Float16{};
        store(bias + k, round_to_int(h * scale) - load<Int16>(integers.offset.data() + k));
    }
    for (int64_t k = book.size / 16 * 16; k < book.padded(); k++) {
        const float h = k < book.size ? book.half_norm[k] : 0;
        bias[k] = k < book.size ? static_cast<int32_t>(__builtin_rintf(h * scale[0])) - integers.offset[k]
                                : INT32_MIN;
    }
}

// Makes the biases of step p, unless they are there from the block before.
template <class Dot>
static void use_step(const Book& book, const IntegerCodes& integers, double p, IntegerScratch<Dot>& scratch) {
    if (p == scratch.bias_step) return;
    make_bias(book, integers, p, scratch.bias.data());
    scratch.bias_step = p;
}

// Batches of 16 vectors in one tile of a block of `count` vectors.
template <class Dot>
MT_INLINE int64_t batches_of(int64_t count, int64_t tile) {
    const int64_t left = (count - tile * kTileLanes<Dot> + 15) / 16;
    return left < kTileLanes<Dot> / 16 ? left : kTileLanes<Dot> / 16;
}

// Searches a block of at most tiles_per_block tiles. make_strike(reach) gives what strikes candidates, see decide.h.
template <class Dot, class MakeStrike>
static void integer_search(const Book& book, const IntegerCodes& integers, const Rows& rows, const Results& results,
                           IntegerScratch<Dot>& scratch, MakeStrike make_strike) {
    constexpr int64_t kLanesOfTile = kTileLanes<Dot>;
    const int64_t unit = scratch.decide.unit, units = scratch.decide.unit_count;
    const int64_t tiles = (rows.count + kLanesOfTile - 1) / kLanesOfTile;
    const int64_t batches = (rows.count + 15) / 16, turned_size = book.dim * 16;

    Reach reach;
    for (int64_t batch = 0; batch < batches; batch++) {
        turn(book, rows, batch * 16, rows.count - batch * 16, scratch.turned.data() + batch * turned_size, reach);
    }
    const Bound bound = make_bound(book, integers, reach);
    use_step(book, integers, bound.p, scratch);
    uint32_t unbounded[kMostTiles * (kLanesOfTile / 16)];
    for (int64_t batch = 0; batch < batches; batch++) {
        const int64_t tile = batch * 16 / kLanesOfTile, lane = batch * 16 % kLanesOfTile;
        unbounded[batch] = pack<Dot>(book, scratch.turned.data() + batch * turned_size, bound,
                                     scratch.tiles.data() + tile * integers.words * kLanesOfTile + lane,
                                     batches_of<Dot>(rows.count, tile) * 16, scratch.slack.data() + batch * 16);
    }

    int64_t step = kCodeBytes / (integers.words * 4 * unit * kGroup);
    step = step < 1 ? 1 : step;
    for (int64_t from = 0; from < units; from += step) {
        const int64_t to = from + step < units ? from + step : units;
        for (int64_t tile = 0; tile < tiles; tile++) {
            Dot::tile(book, integers, scratch.tiles.data() + tile * integers.words * kLanesOfTile, scratch.bias.data(),
                      unit, from, to, scratch.maxima.data() + tile * units * kLanesOfTile,
                      batches_of<Dot>(rows.count, tile));
        }
    }
    auto strike = make_strike(reach);
    for (int64_t batch = 0; batch < batches; batch++) {
        const int64_t tile = batch * 16 / kLanesOfTile, lane = batch * 16 % kLanesOfTile;
        const int64_t left = rows.count - batch * 16;
        decide16<Int16, int32_t>(book, rows, batch * 16, left < 16 ? left : 16,
                                 scratch.maxima.data() + tile * units * kLanesOfTile + lane,
                                 batches_of<Dot>(rows.count, tile) * 16,
                                 load<Int16>(scratch.slack.data() + batch * 16), unbounded[batch], scratch.decide,
                                 results, strike);
    }
}

template <class Dot>
static void integer_search(const Book& book, const IntegerCodes& integers, const Rows& rows, const Results& results,
                           IntegerScratch<Dot>& scratch) {
    integer_search(book, integers, rows, results, scratch, [](const Reach&) { return KeepAll{}; });
}

// So few vectors are compared with every code at once: a tile would hold little else than padding.
constexpr int64_t kFewRows = 3;

MT_INLINE void scan(const Book& book, const Rows& rows, const Results& results, DecideScratch& scratch) {
    results.statistics->scanned += rows.count;
    for (int64_t r = 0; r < rows.count; r++) scan_row(book, rows, r, scratch, results);
}

template <class Dot>
static IntegerScratch<Dot>* make_integer_scratch(const Book& book, int64_t words, int64_t rows) {
    auto* scratch = new IntegerScratch<Dot>;
    const int64_t lanes = (rows + kTileLanes<Dot> - 1) / kTileLanes<Dot> * kTileLanes<Dot>;
    scratch->decide.reset(book, groups_per_unit(book));
    scratch->tiles.reset(lanes * words);
    scratch->maxima.reset(lanes * scratch->decide.unit_count);
    scratch->bias.reset(book.padded());
    scratch->slack.reset(lanes);
    scratch->turned.reset(lanes * book.dim);
    return scratch;
}

// The functions of a path that has one kind of integers.
template <class Dot>
static int64_t rows_per_block(const Book& book) {
    return tiles_per_block<Dot>(book) * kTileLanes<Dot>;
}

template <class Dot>
static Scratch* make_scratch(const Book& book, int64_t rows) {
    return make_integer_scratch<Dot>(book, book.int16.words, rows);
}

template <class Dot>
static void search(const Book& book, const Rows& rows, const Results& results, Scratch& scratch) {
    auto& own = static_cast<IntegerScratch<Dot>&>(scratch);
    if (rows.count <= kFewRows) return scan(book, rows, results, own.decide);
    integer_search(book, book.int16, rows, results, own);
}

}  // namespace MT_ISA
}  // namespace multitok
