// AVX-512 with VNNI: one instruction multiplies and adds two int16 or four int8 values a lane.
#define MT_ISA avx512_vnni
#include "cpu_features.h"
#include "wide.h"

namespace multitok {
namespace MT_ISA {

// The instruction is written out because GCC 12 copies the sum of its own intrinsic to the stack and back each time.
#define MT_DOT(instruction, sum, x, c) asm(instruction " %2, %1, %0" : "+v"(sum) : "v"(x), "v"(c))

struct Words16 : Wide {
    static constexpr int kPerWord = 2, kCodesOfOne = 16;
    static constexpr float kMost = 32767;
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector c) {
        MT_DOT("vpdpwssd", sum, x, c);
        return sum;
    }
    static MT_INLINE Int16 place(Int16 word, Int16 value, int i) { return word | (value & 0xffff) << (16 * i); }
    static constexpr auto tile = tile_of<Words16>;
};

// x is held as value + 128, an unsigned byte; `offset` of the codes takes the 128 out again.
struct Bytes8 : Wide {
    static constexpr int kPerWord = 4, kCodesOfOne = 16;
    static constexpr float kMost = 127;
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector c) {
        MT_DOT("vpdpbusd", sum, x, c);
        return sum;
    }
    static MT_INLINE Int16 place(Int16 word, Int16 value, int i) { return word | (value + 128) << (8 * i); }
    static constexpr auto tile = tile_of<Bytes8>;
};

// From this dimension on it pays to score the last 16 codes in int16, not float32: measured.
constexpr int64_t kStrikeDim = 32;

struct StrikeScratch {
    Aligned<int32_t> row;      // [words] one vector as int16
    Aligned<int32_t> scores;   // [padded V] those of its candidates
    int64_t groups = 0;        // scored for this block so far
};

// The int16 scores of the candidates, code by code, before any float32 distance: their slack is some 200 times smaller
// than that of int8, and a code alone within it of the best is the nearest. The bound of integer.h holds for each code.
class StrikeByWords {
  public:
    static constexpr bool kStrikes = true;

    // `words` lends its biases.
    StrikeByWords(const Book& book, const Rows& rows, const Results& results, const Reach& reach,
                  IntegerScratch<Words16>& words, StrikeScratch& scratch)
        : book_(book), rows_(rows), results_(results), scratch_(scratch), bound_(make_bound(book, book.int16, reach)),
          unit_(words.decide.unit), bias_(words.bias.data()) {
        use_step(book, book.int16, bound_.p, words);
    }

    int64_t operator()(int64_t row, int32_t* units, int64_t count, int32_t* code) {
        int32_t slack;
        if (results_.nearest > 1 || !pack_row(rows_.row(row), &slack)) return count;
        scratch_.groups += count * unit_;
        int32_t* all = scratch_.scores.data();
        Int16 top = splat(INT32_MIN);
        for (int64_t i = 0; i < count * unit_; i++) {
            const int64_t group = units[i / unit_] * unit_ + i % unit_;
            const Int16 s = group < book_.groups ? scores(group) : splat(INT32_MIN);
            store(all + i * kGroup, s);
            top = lane_max(top, s);
        }
        const Int16 threshold = splat(_mm512_reduce_max_epi32(reinterpret_cast<__m512i>(top)) - slack);
        int64_t kept = 0, hits = 0, found = 0;
        for (int64_t i = 0; i < count; i++) {
            const int64_t before = hits;
            for (int64_t g = 0; g < unit_; g++) {
                const uint32_t near = at_least(load<Int16>(all + (i * unit_ + g) * kGroup), threshold);
                if (!near) continue;
                hits += __builtin_popcount(near);
                found = (units[i] * unit_ + g) * kGroup + __builtin_ctz(near);
            }
            if (hits > before) units[kept++] = units[i];
        }
        if (hits > 1 || results_.distances) return kept;
        *code = static_cast<int32_t>(found);
        return 0;
    }

  private:
    // One vector as int16, its values side by side, and its slack; false where no bound holds.
    bool pack_row(const float* x, int32_t* slack) {
        Float16 left_over{}, norm{}, square{}, top{};
        for (int64_t d = 0; d < book_.dim; d += 16) {
            const int64_t left = book_.dim - d;
            const Float16 y = (load_first(x + d, left) - load_first(rows_.centre + d, left)) * splat(bound_.inverse);
            const Float16 held = lane_max(lane_min(y, splat(Words16::kMost)), splat(-Words16::kMost));
            const Int16 rounded = round_to_int(held);
            const Float16 back = to_float(rounded), off = y - back;
            top = lane_max(top, lane_max(y, -y));
            left_over = multiply_add(off, off, left_over);
            norm = multiply_add(back, back, norm);
            square = multiply_add(y, y, square);
            const __m256i packed = _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(rounded));
            __builtin_memcpy(scratch_.row.data() + d / 2, &packed, sizeof packed);
        }
        const float twice = slack_of(bound_, _mm512_reduce_add_ps(left_over), _mm512_reduce_add_ps(norm),
                                     _mm512_reduce_add_ps(square));
        if (!(_mm512_reduce_max_ps(top) <= Words16::kMost && twice < kMostSlack)) return false;
        *slack = static_cast<int32_t>(twice);
        return true;
    }

    // Scores of the packed vector against the 16 codes of a group, one a lane.
    Int16 scores(int64_t group) const {
        const int64_t words = book_.int16.words;
        const int32_t* codes = book_.int16.codes.data() + group * kGroup * words;
        __m512i sum[16];
        unrolled<16>(MT_EACH(k) { sum[k.value] = _mm512_setzero_si512(); });
        for (int64_t w = 0; w < words; w += 16) {
            const auto part = static_cast<__mmask16>(words - w >= 16 ? 0xffff : (1u << (words - w)) - 1);
            const __m512i x = _mm512_maskz_loadu_epi32(part, scratch_.row.data() + w);
            unrolled<16>(MT_EACH(k) {
                const __m512i c = _mm512_maskz_loadu_epi32(part, codes + k.value * words + w);
                sum[k.value] = Words16::dot(sum[k.value], x, c);
            });
        }
        Float16 turned[16];
        unrolled<16>(MT_EACH(k) { turned[k.value] = _mm512_castsi512_ps(sum[k.value]); });
        transpose(turned);
        Int16 total = load<Int16>(bias_ + group * kGroup);
        unrolled<16>(MT_EACH(k) { total += reinterpret_cast<Int16>(turned[k.value]); });
        return total;
    }

    const Book& book_;
    const Rows& rows_;
    const Results& results_;
    StrikeScratch& scratch_;
    const Bound bound_;
    const int64_t unit_;
    const int32_t* const bias_;
};

struct VnniScratch final : Scratch {
    IntegerScratch<Words16>* words = nullptr;
    IntegerScratch<Bytes8>* bytes = nullptr;
    StrikeScratch strike;
    ~VnniScratch() override {
        delete words;
        delete bytes;
    }
};

static bool supported() { return cpu_features().avx512_vnni; }

static Scratch* make_vnni_scratch(const Book& book, int64_t rows) {
    auto* scratch = new VnniScratch;
    scratch->words = make_integer_scratch<Words16>(book, book.int16.words, rows);
    if (book.int8.prepared()) scratch->bytes = make_integer_scratch<Bytes8>(book, book.int8.words, rows);
    scratch->strike.row.reset(book.int16.words);
    scratch->strike.scores.reset(scratch->words->decide.unit_count * scratch->words->decide.unit * kGroup);
    return scratch;
}

// Few vectors: every code is a candidate from the start, and its int16 score is taken for one vector at a time.
static void search_few(const Book& book, const Rows& rows, const Results& results, VnniScratch& own) {
    Reach reach;
    turn(book, rows, 0, rows.count, own.words->turned.data(), reach);
    StrikeByWords strike(book, rows, results, reach, *own.words, own.strike);
    DecideScratch& decide = own.words->decide;
    for (int64_t r = 0; r < rows.count; r++) {
        const int64_t units = list_all(decide);
        const int64_t kept = strike(r, decide.units.data(), units, results.codes + r);
        if (kept) decide_row<0>(book, rows, r, decide.units.data(), kept, decide, results);
    }
}

// Proposing by int8 saves V D / 128 cycles a vector against int16, and each group that is scored again costs about
// 50 + D / 3. On data whose values differ much in size, such as the latents of photos, int8 leaves too many groups; then
// the codebook goes on with int16 for a while.
constexpr int32_t kInt16Blocks = 256;

static void search_large(const Book& book, const Rows& rows, const Results& results, VnniScratch& own) {
    const int32_t int16_blocks = own.bytes ? __atomic_load_n(&book.int16_blocks, __ATOMIC_RELAXED) : 1;
    if (own.bytes && int16_blocks > 0) __atomic_store_n(&book.int16_blocks, int16_blocks - 1, __ATOMIC_RELAXED);
    auto strike = [&](const Reach& reach) {
        return StrikeByWords(book, rows, results, reach, *own.words, own.strike);
    };
    if (int16_blocks > 0) return integer_search(book, book.int16, rows, results, *own.words, strike);
    own.strike.groups = 0;
    integer_search(book, book.int8, rows, results, *own.bytes, strike);
    const int64_t spent = own.strike.groups * (50 + book.dim / 3), saved = rows.count * book.size * book.dim / 128;
    if (spent > saved) __atomic_store_n(&book.int16_blocks, kInt16Blocks, __ATOMIC_RELAXED);
}

static void search_vnni(const Book& book, const Rows& rows, const Results& results, Scratch& scratch) {
    auto& own = static_cast<VnniScratch&>(scratch);
    if (rows.count <= kFewRows && book.dim < kStrikeDim) return scan(book, rows, results, own.words->decide);
    if (rows.count <= kFewRows) return search_few(book, rows, results, own);
    if (book.dim >= kStrikeDim) return search_large(book, rows, results, own);
    integer_search(book, book.int16, rows, results, *own.words);
}

static const Path kPath = {supported, rows_per_block<Words16>, make_vnni_scratch, search_vnni};

}  // namespace MT_ISA

const Path* avx512_vnni_path() { return &MT_ISA::kPath; }

}  // namespace multitok
