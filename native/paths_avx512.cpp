// AVX-512 without VNNI: int16 products and their sums in two instructions.
#define MT_ISA avx512
#include "cpu_features.h"
#include "integer.h"

namespace multitok {
namespace MT_ISA {

// The sums of 8 codes for 48 vectors fill 24 of the 32 registers; for the last vectors of a block, more codes at once.
template <class Dot>
static void tile_of(const Book& book, const IntegerCodes& integers, const int32_t* x, const int32_t* bias, int64_t unit,
                    int64_t from, int64_t to, int32_t* maxima, int64_t batches) {
    switch (batches) {
        case 1: return tile_maxima_of<Dot, 8, 1>(book, integers, x, bias, unit, from, to, maxima, 16);
        case 2: return tile_maxima_of<Dot, 8, 2>(book, integers, x, bias, unit, from, to, maxima, 32);
        default: return tile_maxima_of<Dot, 8, 3>(book, integers, x, bias, unit, from, to, maxima, 48);
    }
}

struct Words16 {
    using Vector = __m512i;
    static constexpr int kPerWord = 2;
    static constexpr int64_t kLanes = 16, kVectors = 3;
    static constexpr float kMost = 32767;
    static MT_INLINE Vector splat(int32_t x) { return _mm512_set1_epi32(x); }
    static MT_INLINE Vector load(const int32_t* from) { return _mm512_loadu_si512(from); }
    static MT_INLINE void store(int32_t* to, Vector v) { _mm512_storeu_si512(to, v); }
    static MT_INLINE Vector largest(Vector a, Vector b) { return _mm512_max_epi32(a, b); }
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector c) {
        // Written out because GCC 12 puts all products before all sums and then has too few registers.
        Vector product;
        asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(x), "v"(c));
        return sum;
    }
    static MT_INLINE Int16 empty() { return Int16{}; }
    static MT_INLINE Int16 place(Int16 word, Int16 value, int i) { return word | (value & 0xffff) << (16 * i); }
    static constexpr auto tile = tile_of<Words16>;
};

static bool supported() { return cpu_features().avx512; }

static const Path kPath = {supported, rows_per_block<Words16>, make_scratch<Words16>, search<Words16>};

}  // namespace MT_ISA

const Path* avx512_path() { return &MT_ISA::kPath; }

}  // namespace multitok
