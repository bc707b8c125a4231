// The proposing pass on AMX: 32 codes times 32 rows at once, four tiles of sums. The bound stands in amx.h.
//
// A tile holds 16 lines of 64 bytes. In a tile of codes a line is 32 values of one code. In a tile of rows a line is
// two neighbouring values of each of 16 rows, so rows are turned, 16 x 16 values at a time. The sums then have a code
// a line and a row a lane, and the largest of 16 codes is a maximum of lines.
//
// The order of the work keeps 32 codes in the first-level cache while all rows of a block pass by; the rows of a block
// and the maxima are kept small enough for the second-level one, and the codes are streamed. Codes of more than
// kMostSteps steps are taken in parts, sums wait in memory.
#define MT_ISA amx
#include "amx.h"
#include "cpu_features.h"
#include "decide.h"

// The tests put software in place of the tile instructions, for processors that lack them.
#if defined(MT_TILE_INSTRUCTIONS)
#include MT_TILE_INSTRUCTIONS
#endif

namespace multitok {
namespace MT_ISA {

// No measurement on hardware chose these; the sizes are those of Sapphire Rapids, 48 KB and 2 MB a core.
constexpr int64_t kMostSteps = 16;                     // 32 KB of codes
constexpr int64_t kRowBytes = 512 << 10;               // bfloat16 rows of a block
constexpr int64_t kMaximaBytes = 1 << 20;              // maxima of a block
constexpr int64_t kMostMaximaBytes = 8 << 20;          // where groups have to share maxima to keep below
constexpr int64_t kFewestPairs = 8, kMostPairs = 16;   // pairs of 16 rows in a block, as long as kRowBytes allows
constexpr int64_t kSums = 4 * 256;                     // float32 values of four tiles

// Memory that the compiler believes unread or unchanged around the tile instructions, which GCC declares without it:
// 8 of the 64 bytes of a configuration, nothing of what is loaded.
MT_INLINE void settle_memory() { __asm__ volatile("" ::: "memory"); }

// Configures the tiles for the life of the object: all 16 lines of 64 bytes.
class Tiles {
  public:
    MT_INLINE Tiles() {
        struct alignas(64) {
            uint8_t palette = 1, start_line = 0, reserved[14] = {};
            uint16_t line_bytes[16] = {};
            uint8_t lines[16] = {};
        } config;
        for (int tile = 0; tile < 8; tile++) {
            config.line_bytes[tile] = 64;
            config.lines[tile] = 16;
        }
        settle_memory();
        _tile_loadconfig(&config);
    }
    MT_INLINE ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// To nearest, denormals kept, as the bound has it, whatever the caller's thread is set to.
class Rounding {
  public:
    MT_INLINE Rounding() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    MT_INLINE ~Rounding() { _mm_setcsr(before_); }
    Rounding(const Rounding&) = delete;
    Rounding& operator=(const Rounding&) = delete;

  private:
    uint32_t before_;
};

MT_INLINE int64_t clamp(int64_t value, int64_t least, int64_t most) {
    return value < least ? least : value > most ? most : value;
}

static int64_t pairs_of(const TileBook& tile) {
    const int64_t by_maxima = clamp(kMaximaBytes / (tile.groups * 32 * 4), kFewestPairs, kMostPairs);
    return clamp(kRowBytes / (tile.steps * kTileValues * 2 * 2), 1, by_maxima);
}

struct TileScratch final : Scratch {
    TileScratch(const Book& book, const TileBook& tile) : pairs(pairs_of(tile)) {
        while (unit_shift < 4 && pairs * (tile.groups >> unit_shift) * 32 * 4 > kMostMaximaBytes) unit_shift++;
        maxima_stride = (tile.groups >> unit_shift) + 1;
        decide.reset(book, int64_t{1} << unit_shift);
        rows.reset(pairs * 2 * tile.steps * kTileValues);
        maxima.reset(pairs * maxima_stride * 32);
        sums.reset((tile.steps > kMostSteps && pairs > 2 ? pairs : 2) * kSums);
        slack.reset(pairs * 32);
    }

    DecideScratch decide;
    const int64_t pairs;             // of 16 rows, at most, in a block
    int64_t unit_shift = 0;          // log2 of the groups that share a maximum
    int64_t maxima_stride = 0;       // units, that of groups that do not exist included
    Aligned<uint16_t> rows;          // [pairs * 2][steps][16 lines][16 lanes][2]
    Aligned<float> maxima;           // [pairs][maxima_stride][32 lanes]
    Aligned<float> sums;             // [2 or pairs][4 tiles][16][16]
    Aligned<float> slack;            // [pairs * 32]
};

// ---- rows -------------------------------------------------------------------------------------------------------

// Lane sums of squares, see TileBook.
struct Measures {
    Float16 residual{}, high{}, low{};
};

// Dimensions d to d + 16 of 16 rows less the centre, a row a lane; 0 from D on. Behind the last row it stands again.
MT_INLINE void turned_values(const Rows& rows, int64_t first, int64_t d, int64_t dim, Float16 (&y)[16]) {
    const Float16 centre = load_first(rows.centre + d, dim - d);
#pragma GCC unroll 16
    for (int64_t i = 0; i < 16; i++) {
        const int64_t row = first + i < rows.count ? first + i : rows.count - 1;
        y[i] = load_first(rows.row(row) + d, dim - d) - centre;
    }
    transpose(y);
}

// bfloat16 of 16 values, as the float32 that they stand for.
MT_INLINE Float16 nearest_bfloat16(Float16 y) {
    const __m512i bits = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(y)));
    return reinterpret_cast<Float16>(_mm512_slli_epi32(bits, 16));
}

// One line of a tile: for each lane the pair (even, odd) of values that are bfloat16 already.
MT_INLINE Int16 line_of(Float16 even, Float16 odd) {
    const __m512i low = _mm512_srli_epi32(reinterpret_cast<__m512i>(even), 16);
    return reinterpret_cast<Int16>(_mm512_or_si512(low, reinterpret_cast<__m512i>(odd)));
}

MT_INLINE void add_square(Float16& sum, Float16 y) { sum = multiply_add(y, y, sum); }

static Measures pack_plain(const Rows& rows, int64_t dim, int64_t first, uint16_t* lines) {
    Measures measures;
    for (int64_t d = 0; d < dim; d += 16) {
        Float16 y[16];
        turned_values(rows, first, d, dim, y);
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 2) {
            const Float16 even = nearest_bfloat16(y[i]), odd = nearest_bfloat16(y[i + 1]);
            add_square(measures.high, even);
            add_square(measures.high, odd);
            add_square(measures.residual, y[i] - even);
            add_square(measures.residual, y[i + 1] - odd);
            store(lines + (d + i) * 16, line_of(even, odd));
        }
    }
    return measures;
}

static Measures pack_folded(const Rows& rows, int64_t dim, int64_t first, uint16_t* lines) {
    Measures measures;
    Float16 y[16];
    turned_values(rows, first, 0, dim, y);
    Float16 columns[kStepValues] = {};
    for (int64_t d = 0; d < dim; d++) {
        const Float16 high = nearest_bfloat16(y[d]), rest = y[d] - high, low = nearest_bfloat16(rest);
        add_square(measures.high, high);
        add_square(measures.low, low);
        add_square(measures.residual, rest - low);
        columns[d] = columns[2 * dim + d] = high;
        columns[dim + d] = low;
    }
    for (int64_t i = 0; i < 3; i++) columns[3 * dim + i] = splat(-1.0f);
    for (int64_t i = 0; i < kStepValues; i += 2) store(lines + i * 16, line_of(columns[i], columns[i + 1]));
    return measures;
}

// The slack of 16 rows, infinite where it is not a number.
static Float16 slack_of(const TileBook& tile, const Measures& measures) {
    const auto root = [&](Float16 sum) -> Float16 {
        return splat(tile.root_factor) * static_cast<Float16>(_mm512_sqrt_ps(sum)) + splat(tile.root_term);
    };
    const Float16 residual = root(measures.residual), high = root(measures.high);
    const Float16 low = tile.folded ? root(measures.low) : Float16{};
    const Float16 reach = residual + high + low + splat(tile.largest_norm);
    const Float16 slack = splat(tile.per_residual) * residual + splat(tile.per_high) * high +
                          splat(tile.per_low) * low + splat(tile.constant) + splat(tile.per_square) * reach * reach;
    const Float16 infinity = splat(__builtin_inff());
    return slack < infinity ? slack : infinity;
}

// Packs 16 rows into their tiles and gives their slack. Rows without a bound enter as zeros, so that nothing infinite
// is multiplied.
static Float16 pack_rows(const TileBook& tile, const Rows& rows, int64_t dim, int64_t first, uint16_t* lines) {
    const Measures measures = tile.folded ? pack_folded(rows, dim, first, lines) : pack_plain(rows, dim, first, lines);
    const Float16 slack = slack_of(tile, measures);
    const Int16 bounded = slack < splat(__builtin_inff());
    if (bits_of(bounded) != 0xffffu) {
        for (int64_t line = 0; line < tile.steps * 16; line++) {
            store(lines + line * 32, load<Int16>(lines + line * 32) & bounded);
        }
    }
    return slack;
}

// ---- products ---------------------------------------------------------------------------------------------------

// Adds `steps` steps of 32 codes times 32 rows to four tiles of sums. Tiles 0 and 1: the first 16 codes with the first
// and second 16 rows; 2 and 3: the second 16 codes. The second 16 codes and rows lie `apart` values behind the first.
MT_INLINE void multiply(const uint16_t* codes, const uint16_t* rows, int64_t apart, int64_t steps) {
#pragma GCC unroll 1
    for (int64_t step = 0; step < steps; step++, codes += kTileValues, rows += kTileValues) {
        _tile_loadd(4, codes, 64);
        _tile_loadd(6, rows, 64);
        _tile_loadd(5, codes + apart, 64);
        _tile_loadd(7, rows + apart, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

MT_INLINE void load_sums(const float* sums) {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + 256, 64);
    _tile_loadd(2, sums + 512, 64);
    _tile_loadd(3, sums + 768, 64);
}

MT_INLINE void clear_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

MT_INLINE void store_sums(float* sums) {
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
    settle_memory();
}

// The largest score of 16 codes, for 16 rows.
template <bool kFolded>
MT_INLINE Float16 largest_of(const float* sums, const float* half_norm) {
    const auto score = [&](int code) {
        const Float16 sum = load<Float16>(sums + code * 16);
        return kFolded ? sum : sum - splat(half_norm[code]);
    };
    Float16 even = score(0), odd = score(1);
#pragma GCC unroll 8
    for (int code = 2; code < 16; code += 2) {
        even = lane_max(even, score(code));
        odd = lane_max(odd, score(code + 1));
    }
    return lane_max(even, odd);
}

// Enters the maxima of the groups `group` and `group` + 1 for one pair of 16 rows, from their sums.
template <bool kFolded>
MT_INLINE void enter_maxima(const TileBook& tile, const float* sums, int64_t group, int64_t pair,
                            TileScratch& scratch) {
    const int64_t shift = scratch.unit_shift;
    float* const maxima = scratch.maxima.data() + pair * scratch.maxima_stride * 32;
    for (int64_t g = group; g < group + 2; g++, sums += 512) {
        const float* half_norm = tile.half_norm.data() + g * kGroup;
        float* to = maxima + (g >> shift) * 32;
        const Float16 left = largest_of<kFolded>(sums, half_norm);
        const Float16 right = largest_of<kFolded>(sums + 256, half_norm);
        const bool first = (g & ((int64_t{1} << shift) - 1)) == 0;
        store(to, first ? left : lane_max(left, load<Float16>(to)));
        store(to + 16, first ? right : lane_max(right, load<Float16>(to + 16)));
    }
}

// Maxima of all units for `pairs` pairs of packed rows, where the codes have few steps. The maxima of one product are
// taken after the next has been started, so that both kinds of work overlap.
template <bool kFolded>
static void score(const TileBook& tile, int64_t pairs, TileScratch& scratch) {
    const int64_t steps = kFolded ? 1 : tile.steps, apart = steps * kTileValues;
    float *sums = scratch.sums.data(), *last_sums = sums + kSums;
    int64_t last_group = -1, last_pair = 0;
    for (int64_t group = 0; group < tile.groups; group += 2) {
        for (int64_t pair = 0; pair < pairs; pair++) {
            clear_sums();
            multiply(tile.codes.data() + group * apart, scratch.rows.data() + pair * 2 * apart, apart, steps);
            store_sums(sums);
            if (last_group >= 0) enter_maxima<kFolded>(tile, last_sums, last_group, last_pair, scratch);
            last_group = group;
            last_pair = pair;
            float* const free = last_sums;
            last_sums = sums;
            sums = free;
        }
    }
    enter_maxima<kFolded>(tile, last_sums, last_group, last_pair, scratch);
}

// The same for codes of many steps, kMostSteps of them at a time.
static void score_in_parts(const TileBook& tile, int64_t pairs, TileScratch& scratch) {
    const int64_t apart = tile.steps * kTileValues;
    for (int64_t group = 0; group < tile.groups; group += 2) {
        for (int64_t step = 0; step < tile.steps; step += kMostSteps) {
            const int64_t left = tile.steps - step, at = step * kTileValues;
            for (int64_t pair = 0; pair < pairs; pair++) {
                float* sums = scratch.sums.data() + pair * kSums;
                step ? load_sums(sums) : clear_sums();
                multiply(tile.codes.data() + group * apart + at, scratch.rows.data() + pair * 2 * apart + at, apart,
                         left < kMostSteps ? left : kMostSteps);
                store_sums(sums);
                if (left <= kMostSteps) enter_maxima<false>(tile, sums, group, pair, scratch);
            }
        }
    }
}

// Proposes for `count` rows from `first` on, at most 32 * pairs: their maxima and slack stand in `scratch`.
static void propose(const Book& book, const TileBook& tile, const Rows& rows, int64_t first, int64_t count,
                    TileScratch& scratch) {
    const int64_t pairs = (count + 31) / 32, tile_size = tile.steps * kTileValues;
    for (int64_t half = 0; half < 2 * pairs; half++) {
        const Float16 slack =
            pack_rows(tile, rows, book.dim, first + half * 16, scratch.rows.data() + half * tile_size);
        store(scratch.slack.data() + half * 16, slack);
    }
    settle_memory();
    if (tile.folded) {
        score<true>(tile, pairs, scratch);
    } else if (tile.steps <= kMostSteps) {
        score<false>(tile, pairs, scratch);
    } else {
        score_in_parts(tile, pairs, scratch);
    }
}

// ---- the path ---------------------------------------------------------------------------------------------------

static bool supported() { return cpu_features().amx_bf16; }

static int64_t rows_per_block(const Book& book) { return 32 * pairs_of(*book.tile); }

static Scratch* make_scratch(const Book& book, int64_t) { return new TileScratch(book, *book.tile); }

static void search(const Book& book, const Rows& rows, const Results& results, Scratch& given) {
    const TileBook& tile = *book.tile;
    auto& scratch = static_cast<TileScratch&>(given);
    const Rounding rounding;
    const Tiles tiles;
    for (int64_t first = 0; first < rows.count; first += 32 * scratch.pairs) {
        const int64_t left = rows.count - first, count = left < 32 * scratch.pairs ? left : 32 * scratch.pairs;
        propose(book, tile, rows, first, count, scratch);
        for (int64_t i = 0; i < count; i += 16) {
            const float* maxima = scratch.maxima.data() + i / 32 * scratch.maxima_stride * 32 + i % 32;
            const Float16 slack = load<Float16>(scratch.slack.data() + i);
            const Float16 infinity = splat(__builtin_inff());
            const uint32_t unbounded = at_least(slack, infinity);
            decide16<Float16>(book, rows, first + i, clamp(count - i, 0, 16), maxima, 32,
                              static_cast<Float16>(slack < infinity ? slack : Float16{}), unbounded, scratch.decide,
                              results);
        }
    }
}

static const Path kPath = {supported, rows_per_block, make_scratch, search};

}  // namespace MT_ISA

const Path* amx_path() { return &MT_ISA::kPath; }

}  // namespace multitok
