// Any processor: float32 products in compiler vectors. Also compares with every code where no bound holds.
//
// The bound. With a = x - centre, b the code as Book says, and u = 2^-24: a is read with |fl(a) - a| <= u |fl(a)| (and b
// with |b - shifted| <= shift_error), and s = a.b - |b|^2 / 2 is a sum of D products and one more term, so in any order
//     |s~ - s| <= (D + 3) u' (|a| max|b| + max|b|^2 / 2) + |a| shift_error + (D + 1) 2^-126,
// u' = u (1 + D u), which the factor 2^-23 in place of 2^-24 covers for D up to 2^22. The definition's own rounding,
// (2 D + 8) 2^-53 (|a| + |b|)^2, is added. Twice the sum is the slack of decide.h.
#define MT_ISA portable
#include "decide.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace multitok {
namespace MT_ISA {
namespace {

typedef float Float4 __attribute__((vector_size(16)));

// Sums of kCodes codes for 16 vectors, four lanes at a time: they fill the registers of SSE2, or those of NEON.
#if defined(__aarch64__)
constexpr int kCodes = 4;
#else
constexpr int kCodes = 2;
#endif
constexpr float kLargestValue = 1e18f;
constexpr int64_t kMostUnits = 512, kCodeBytes = 256 << 10, kMaximaBytes = 192 << 10, kMostBatches = 32;
// So few vectors are compared with every code at once.
constexpr int64_t kFewRows = 3;

MT_INLINE Float4 add_product(Float4 sum, Float4 x, float c) {
#if defined(__aarch64__)
    return vfmaq_n_f32(sum, x, c);
#else
    return sum + x * c;
#endif
}

struct PortableScratch final : Scratch {
    DecideScratch decide;
    Aligned<float> turned;   // [batches][D][16]
    Aligned<float> maxima;   // [batches][units][16]
    Aligned<float> slack;    // [batches][16]
};

bool supported() { return true; }

int64_t groups_per_unit(const Book& book) {
    int64_t unit = 1;
    while ((book.groups + unit - 1) / unit > kMostUnits) unit *= 2;
    return unit;
}

int64_t rows_per_block(const Book& book) {
    const int64_t unit = groups_per_unit(book), units = (book.groups + unit - 1) / unit;
    const int64_t batches = kMaximaBytes / ((units + book.dim) * 64);
    return 16 * (batches < 1 ? 1 : batches > kMostBatches ? kMostBatches : batches);
}

Scratch* make_scratch(const Book& book, int64_t rows) {
    auto* scratch = new PortableScratch;
    const int64_t batches = (rows + 15) / 16;
    scratch->decide.reset(book, groups_per_unit(book));
    scratch->turned.reset(batches * book.dim * 16);
    scratch->maxima.reset(batches * scratch->decide.unit_count * 16);
    scratch->slack.reset(batches * 16);
    return scratch;
}

// Turns 16 vectors so that a lane is a vector; gives their slack and the bits of those for which no bound holds.
uint32_t turn(const Book& book, const Rows& rows, int64_t first, float* turned, float* slack) {
    uint32_t unbounded = 0;
    const double dim = static_cast<double>(book.dim), norm = book.largest_norm;
    for (int64_t lane = 0; lane < 16; lane++) {
        const float* x = rows.row(first + lane < rows.count ? first + lane : first);
        double square = 0;
        float most = 0;
        for (int64_t d = 0; d < book.dim; d++) {
            const float a = x[d] - rows.centre[d];
            turned[d * 16 + lane] = a;
            square += static_cast<double>(a) * static_cast<double>(a);
            most = __builtin_fabsf(a) > most ? __builtin_fabsf(a) : most;
        }
        const double reach = __builtin_sqrt(square) * (1 + 0x1p-20);
        const double half = book.metric == MT_L2 ? norm * norm / 2 : 0;
        const double error = (dim + 3) * 0x1p-23 * (reach * norm + half) + reach * book.shift_error +
                             (2 * dim + 8) * 0x1p-53 * (reach + norm) * (reach + norm) + (dim + 1) * 0x1p-126;
        slack[lane] = static_cast<float>(2 * error * (1 + 0x1p-20)) + 0x1p-120f;
        unbounded |= static_cast<uint32_t>(!(most < kLargestValue)) << lane;
    }
    return unbounded;
}

// The maximum over the codes [first, last) for 16 turned vectors.
Float16 largest_scores(const Book& book, const float* turned, int64_t first, int64_t last) {
    Float4 best[4];
    for (Float4& b : best) b = Float4{} - __builtin_inff();
    for (int64_t k = first; k < last; k += kCodes) {
        Float4 sum[kCodes][4];
        for (int r = 0; r < kCodes; r++) {
            for (Float4& s : sum[r]) s = Float4{} - book.half_norm[k + r];
        }
        const float* codes = book.shifted.data() + k * book.dim;
        for (int64_t d = 0; d < book.dim; d++) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const Float4 x = load<Float4>(turned + d * 16 + j * 4);
#pragma GCC unroll 4
                for (int r = 0; r < kCodes; r++) sum[r][j] = add_product(sum[r][j], x, codes[r * book.dim + d]);
            }
        }
        for (int r = 0; r < kCodes; r++) {
            for (int j = 0; j < 4; j++) best[j] = sum[r][j] > best[j] ? sum[r][j] : best[j];
        }
    }
    return load<Float16>(best);
}

void search(const Book& book, const Rows& rows, const Results& results, Scratch& given) {
    auto& scratch = static_cast<PortableScratch&>(given);
    if (!book.bounded || rows.count <= kFewRows) {
        results.statistics->scanned += rows.count;
        for (int64_t r = 0; r < rows.count; r++) scan_row(book, rows, r, scratch.decide, results);
        return;
    }
    const int64_t unit = scratch.decide.unit, units = scratch.decide.unit_count;
    const int64_t batches = (rows.count + 15) / 16;
    uint32_t unbounded[kMostBatches];
    for (int64_t batch = 0; batch < batches; batch++) {
        unbounded[batch] = turn(book, rows, batch * 16, scratch.turned.data() + batch * book.dim * 16,
                                scratch.slack.data() + batch * 16);
    }
    int64_t step = kCodeBytes / (book.dim * 4 * unit * kGroup);
    step = step < 1 ? 1 : step;
    for (int64_t from = 0; from < units; from += step) {
        const int64_t to = from + step < units ? from + step : units;
        for (int64_t batch = 0; batch < batches; batch++) {
            for (int64_t u = from; u < to; u++) {
                const int64_t first = u * unit * kGroup, past = first + unit * kGroup;
                store(scratch.maxima.data() + (batch * units + u) * 16,
                      largest_scores(book, scratch.turned.data() + batch * book.dim * 16, first,
                                     past < book.padded() ? past : book.padded()));
            }
        }
    }
    for (int64_t batch = 0; batch < batches; batch++) {
        const int64_t left = rows.count - batch * 16;
        decide16<Float16, float>(book, rows, batch * 16, left < 16 ? left : 16,
                                 scratch.maxima.data() + batch * units * 16, 16,
                                 load<Float16>(scratch.slack.data() + batch * 16), unbounded[batch], scratch.decide,
                                 results);
    }
}

const Path kPath = {supported, rows_per_block, make_scratch, search};

}  // namespace
}  // namespace MT_ISA

const Path* portable_path() { return &MT_ISA::kPath; }

}  // namespace multitok
