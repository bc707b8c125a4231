// The codebook as AMX reads it, tiles of bfloat16, and the proof of the bound that its scores keep.
//
// What is computed. V codes, D dimensions. In reals, a = x - centre and b = c - centre (MT_L2; else a = x, and b = c or
// c / |c|), and the score is s = a.b - h with h = |b|^2 / 2 (MT_L2) or 0.
//   plain (D > 9):   a^ and b^ are a and b rounded to bfloat16;  s~ = fl(a^.b^ - h^), h^ is h rounded to float32.
//   folded (D <= 9): a = a1 + a2 + rest, b = b1 + b2 + rest and h = h1 + h2 + h3 + rest, pieces of bfloat16, and one
//   step of 32 products gives a1.b1 + a2.b1 + a1.b2 - h1 - h2 - h3, from rows [a1, a2, a1, -1, -1, -1] and codes
//   [b1, b1, b2, h1, h2, h3].
//
// What is proven: |s~ - s| <= E for every code, E depending on the row alone; 2 E, rounded up, is decide.h's slack.
// Let u = 2^-24 and g(n) = n u / (1 - n u), the usual factor of n roundings (Higham, Accuracy and Stability of
// Numerical Algorithms, 2nd ed., section 3.1). By the triangle inequality and Cauchy-Schwarz E is the sum of
//   1. reading the row. The float32 y stands for a with |y - a| <= 2 u |y| + sqrt(D) 2^-149: it is fl(x - centre),
//      rounded once, or once more where it was made from float64 values, and then it may underflow.
//   2. rounding the row. Plain: r = |y - a^|; folded: r = |y - a1 - a2|. y - a^ is a float32 without rounding, as a^ is
//      0 or within 2^-8 of y, so r, |a1| and |a2| are measured: roots of sums of squares in float32. For a sum S~ of
//      D squares (no more than D roundings on any way through it, each with an underflow of at most 2^-149) the true
//      sum is at most (S~ + D 2^-149) / (1 - g(D)), and its root at most sqrt(S~) (1 + (D + 2) u) + sqrt(D) 2^-74 as
//      long as D u <= 1/8. vcvtneps2bf16 takes denormals for 0, which the residual measures too.
//   3. 1 and 2 times max|b|, as a.b - a^.b = (a - a^).b.
//   4. rounding the codes: |a^| max|b - b^|, measured in float64 when the codebook is prepared; folded: |a1 + a2|
//      max|b - b1 - b2|, and |a2| max|b2| for the product that is left out.
//   5. the sums inside TDPBF16PS. The manual (Intel SDM vol. 2, TDPBF16PS) says: two chains of 16 fused multiply-adds,
//      for even and odd values; their sum; that added to the tile; all to nearest even. We need less: at most P
//      products that are not 0 (P = D, or 3 D + 3 folded; adding a 0 is exact), rounded or not, added in any order,
//      carry at most P roundings each. With the subtraction of h^, and the rounding of `maximum - slack` in decide.h,
//      the error is at most g(P + 4) (sum |a^_i b^_i| + max h) <= g(P + 4) (|a^| max|b^| + max h); folded:
//      |a1| max|b1| + |a2| max|b1| + |a1| max|b2| takes the place of |a^| max|b^|.
//   6. flushing. Results below 2^-126 become 0: at most 2^-126 for each of the 66 operations (32 products where they
//      are not fused, 32 + 2 sums) of a step, doubled for the roundings that follow. bfloat16 denormals count as 0
//      too; neither a^ nor b^ holds any.
//   7. |h - h^| (or |h - h1 - h2 - h3|), measured.
//   8. the definition, evaluated in float64: 2 (2 D + 8) 2^-53 of the square of |a| + |b| at most (integer.h); for the
//      other metrics of |a||b|.
// All terms are positive, so their evaluation in float32, fewer than 32 roundings, is made up for by a factor
// 1 + 2^-18, and the constants below are rounded up.
//
// Overflow. A row with a finite measure has |a^| < 2^64, and |b| < 2^50 (Book::bounded), so that no partial sum reaches
// 2^127. A row with a measure that is infinite or not a number enters the tiles as zeros and gets an infinite slack: it
// is compared with every code. So is every row where D > 500,000.
#pragma once

#include "book.h"

namespace multitok {

constexpr int64_t kStepValues = 32;                   // bfloat16 values of one code or row in a tile
constexpr int64_t kTileValues = 16 * kStepValues;     // 16 codes, or 16 rows
constexpr int64_t kMostFoldedDim = 9;                 // 3 D + 3 <= 32
constexpr int64_t kMostTileDim = 500000;

struct TileBook {
    bool folded = false;
    int64_t steps = 0;             // of kStepValues products
    int64_t groups = 0;            // Book::groups rounded up to an even number; codes that do not exist score lowest
    Aligned<uint16_t> codes;       // [groups][steps][16 codes][32 values]
    Aligned<float> half_norm;      // [groups * 16] h^; not read where folded

    // The bound. With R = |y - a^|, A1 = |a1| (or |a^|), A2 = |a2| (or 0), each root_factor * sqrt(sum) + root_term:
    // slack = per_residual R + per_high A1 + per_low A2 + constant + per_square (A1 + A2 + R + largest_norm)^2
    float root_factor = 0, root_term = 0;
    float per_residual = 0, per_high = 0, per_low = 0, constant = 0, per_square = 0, largest_norm = 0;

    int64_t bytes() const;
};

// Needs a book that is bounded, with `shifted`. Throws std::bad_alloc. Runs on any processor.
std::shared_ptr<TileBook> make_tile_book(const Book& book);

}  // namespace multitok
