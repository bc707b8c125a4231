// AVX-512 with VNNI: one instruction multiplies and adds two int16 or four int8 values a lane.
#define MT_ISA avx512_vnni
#include "cpu_features.h"
#include "integer.h"

namespace multitok {
namespace MT_ISA {

struct Wide {
    using Vector = __m512i;
    static constexpr int64_t kLanes = 16, kVectors = 3;
    static MT_INLINE Vector splat(int32_t x) { return _mm512_set1_epi32(x); }
    static MT_INLINE Vector load(const int32_t* from) { return _mm512_loadu_si512(from); }
    static MT_INLINE void store(int32_t* to, Vector v) { _mm512_storeu_si512(to, v); }
    static MT_INLINE Vector largest(Vector a, Vector b) { return _mm512_max_epi32(a, b); }
};

// The instruction is written out because GCC 12 copies the sum of its own intrinsic to the stack and back each time.
#define MT_DOT(instruction, sum, x, c) asm(instruction " %2, %1, %0" : "+v"(sum) : "v"(x), "v"(c))

// The sums of 8 codes for 48 vectors fill 24 of the 32 registers; for the last vectors of a block, more codes at once.
template <class Dot>
static void tile_of(const Book& book, const IntegerCodes& integers, const int32_t* x, const int32_t* bias, int64_t unit,
                    int64_t from, int64_t to, int32_t* maxima, int64_t batches) {
    switch (batches) {
        case 1: return tile_maxima_of<Dot, 16, 1>(book, integers, x, bias, unit, from, to, maxima, 16);
        case 2: return tile_maxima_of<Dot, 8, 2>(book, integers, x, bias, unit, from, to, maxima, 32);
        default: return tile_maxima_of<Dot, 8, 3>(book, integers, x, bias, unit, from, to, maxima, 48);
    }
}

struct Words16 : Wide {
    static constexpr int kPerWord = 2;
    static constexpr float kMost = 32767;
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector c) {
        MT_DOT("vpdpwssd", sum, x, c);
        return sum;
    }
    static MT_INLINE Int16 empty() { return Int16{}; }
    static MT_INLINE Int16 place(Int16 word, Int16 value, int i) { return word | (value & 0xffff) << (16 * i); }
    static constexpr auto tile = tile_of<Words16>;
};

// x is held as value + 128, an unsigned byte; `offset` of the codes takes the 128 out again.
struct Bytes8 : Wide {
    static constexpr int kPerWord = 4;
    static constexpr float kMost = 127;
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector c) {
        MT_DOT("vpdpbusd", sum, x, c);
        return sum;
    }
    static MT_INLINE Int16 empty() { return Int16{}; }
    static MT_INLINE Int16 place(Int16 word, Int16 value, int i) { return word | (value + 128) << (8 * i); }
    static constexpr auto tile = tile_of<Bytes8>;
};

// int8 saves V D / 128 cycles a vector against int16, and each group compared again costs D cycles: int8 goes on while
// the groups of a vector stay below V / 128 = groups / 8, measured block by block. Which one proposes changes no code.
constexpr int64_t kBytesGain = 8;

struct VnniScratch final : Scratch {
    IntegerScratch<Words16>* words = nullptr;
    IntegerScratch<Bytes8>* bytes = nullptr;
    bool bytes_failed = false;  // the codes lie too close for int8: int16 from the next block on
    ~VnniScratch() override {
        delete words;
        delete bytes;
    }
};

static bool supported() { return cpu_features().avx512_vnni; }

static Scratch* make_vnni_scratch(const Book& book, int64_t) {
    auto* scratch = new VnniScratch;
    scratch->words = make_integer_scratch<Words16>(book, book.int16.words);
    if (book.int8.prepared()) scratch->bytes = make_integer_scratch<Bytes8>(book, book.int8.words);
    return scratch;
}

static void search_vnni(const Book& book, const Rows& rows, const Results& results, Scratch& scratch) {
    auto& own = static_cast<VnniScratch&>(scratch);
    if (rows.count <= kFewRows) return scan(book, rows, results, own.words->decide);
    if (!own.bytes || own.bytes_failed) return integer_search(book, book.int16, rows, results, *own.words);
    const int64_t before = results.statistics->groups;
    integer_search(book, book.int8, rows, results, *own.bytes);
    own.bytes_failed = (results.statistics->groups - before) * kBytesGain > book.groups * rows.count;
}

static const Path kPath = {supported, rows_per_block<Words16>, make_vnni_scratch, search_vnni};

}  // namespace MT_ISA

const Path* avx512_vnni_path() { return &MT_ISA::kPath; }

}  // namespace multitok
