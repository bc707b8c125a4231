// Codes in the tile order of AMX; see amx.h for the form and the bound.
#include "amx.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace multitok {

namespace {

// Nearest bfloat16 (ties to even) as its float32; denormals become 0, as the tile instructions take them.
float nearest_bfloat16(float value) {
    if (std::fabs(value) < std::numeric_limits<float>::min()) return 0;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

// The upper half of a float32 that is a bfloat16.
uint16_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
}

// A float32 no smaller; also covers that `value` itself was rounded in float64.
float round_up(double value) {
    const double larger = value * (1 + 0x1p-22);
    return larger < std::numeric_limits<float>::min() ? std::numeric_limits<float>::min() : static_cast<float>(larger);
}

// The largest of a few measures over all codes, each >= 0.
struct Largest {
    double high = 0, low = 0, residual = 0, half_norm_error = 0;
    void take(double& most, double value) { most = value > most ? value : most; }
};

// Splits value into at most three bfloat16 pieces; returns what is left.
double split(double value, int pieces, float* piece) {
    for (int i = 0; i < pieces; i++) {
        piece[i] = nearest_bfloat16(static_cast<float>(value));
        value -= piece[i];
    }
    return value;
}

void place_code(const Book& book, int64_t code, TileBook* tile, Largest* largest) {
    const int64_t dim = book.dim;
    const float* values = book.shifted.data() + code * dim;
    uint16_t* const first = tile->codes.data() + (code / 16 * tile->steps * 16 + code % 16) * kStepValues;
    const auto at = [&](int64_t k) -> uint16_t& { return first[k / kStepValues * kTileValues + k % kStepValues]; };

    double norm = 0, high = 0, low = 0, residual = 0;
    for (int64_t d = 0; d < dim; d++) {
        const double value = values[d];
        float piece[2] = {};
        const double left = split(value, tile->folded ? 2 : 1, piece);
        at(d) = bits_of(piece[0]);
        if (tile->folded) {
            at(dim + d) = bits_of(piece[0]);
            at(2 * dim + d) = bits_of(piece[1]);
        }
        norm += value * value;
        high += static_cast<double>(piece[0]) * piece[0];
        low += static_cast<double>(piece[1]) * piece[1];
        residual += left * left;
    }
    const double half_norm = book.metric == MT_L2 ? norm / 2 : 0;
    double half_norm_left;
    if (tile->folded) {
        float piece[3];
        half_norm_left = split(half_norm, 3, piece);
        for (int i = 0; i < 3; i++) at(3 * dim + i) = bits_of(piece[i]);
    } else {
        const float rounded = static_cast<float>(half_norm);
        tile->half_norm[code] = rounded;
        half_norm_left = half_norm - rounded;
    }
    largest->take(largest->high, std::sqrt(high));
    largest->take(largest->low, std::sqrt(low));
    largest->take(largest->residual, std::sqrt(residual));
    largest->take(largest->half_norm_error, std::fabs(half_norm_left));
}

// A code that does not exist: its values are 0 and its score is lower than any other.
void place_nothing(const Book& book, int64_t code, TileBook* tile) {
    constexpr float kLowest = 3e38f;
    if (tile->folded) {
        const int64_t first = code * kStepValues;  // one step a code
        tile->codes[first + 3 * book.dim] = bits_of(nearest_bfloat16(kLowest));
    } else {
        tile->half_norm[code] = kLowest;
    }
}

// The sum of amx.h, twice.
void set_bound(const Book& book, const Largest& largest, TileBook* tile) {
    const double dim = static_cast<double>(book.dim), u = 0x1p-24;
    const double norm = book.largest_norm, shift = book.shift_error;
    const double products = (tile->folded ? 3 * dim + 3 : dim) + 4;
    const double roundings = products * u / (1 - products * u);
    const double code_error = largest.residual + shift;
    const double definition = 2 * (2 * dim + 8) * 0x1p-53;
    const bool l2 = book.metric == MT_L2;
    const double half_norm = l2 ? norm * norm / 2 * (1 + 0x1p-7) : 0;  // >= |h1| + |h2| + |h3|
    // h is of b, half_norm of b rounded to float32; float64 sums of D squares.
    const double half_norm_error =
        largest.half_norm_error + (l2 ? shift * (norm + shift) + (dim + 4) * 0x1p-52 * (half_norm + shift * shift) : 0);
    const double flushed = 2 * 66 * static_cast<double>(tile->steps) * 0x1p-126;
    const double reading = 4 * u * norm;  // 2 u |y|, |y| <= A1 + A2 + R
    const double other = l2 ? 0 : definition * norm;

    const double twice = 2 * (1 + 0x1p-18);
    tile->root_factor = round_up(1 + (dim + 2) * u);
    tile->root_term = round_up(std::sqrt(dim) * 0x1p-73);
    tile->per_residual = round_up(twice * (norm + reading + other));
    tile->per_high = round_up(twice * (code_error + reading + other + roundings * (largest.high + largest.low)));
    tile->per_low = round_up(twice * (code_error + reading + other + largest.low + roundings * largest.high));
    tile->constant = round_up(twice * (roundings * half_norm + half_norm_error + flushed));
    tile->per_square = l2 ? round_up(twice * definition) : 0;
    tile->largest_norm = round_up(norm);
    if (book.dim > kMostTileDim) tile->constant = std::numeric_limits<float>::infinity();
}

}  // namespace

int64_t TileBook::bytes() const { return codes.bytes() + half_norm.bytes(); }

std::shared_ptr<TileBook> make_tile_book(const Book& book) {
    auto tile = std::make_shared<TileBook>();
    tile->folded = book.dim <= kMostFoldedDim;
    tile->steps = (book.dim + kStepValues - 1) / kStepValues;
    tile->groups = (book.groups + 1) / 2 * 2;
    tile->codes.reset(tile->groups * tile->steps * kTileValues);
    tile->half_norm.reset(tile->groups * kGroup);
    Largest largest;
    for (int64_t code = 0; code < book.size; code++) place_code(book, code, tile.get(), &largest);
    for (int64_t code = book.size; code < tile->groups * kGroup; code++) place_nothing(book, code, tile.get());
    set_bound(book, largest, tile.get());
    return tile;
}

}  // namespace multitok
