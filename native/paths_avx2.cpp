// AVX2: int16 products and their sums in two instructions, eight lanes at a time.
#define MT_ISA avx2
#include "cpu_features.h"
#include "integer.h"

namespace multitok {
namespace MT_ISA {

struct Words16 {
    using Vector = __m256i;
    static constexpr int kPerWord = 2;
    static constexpr int64_t kLanes = 8, kVectors = 2;
    static constexpr float kMost = 32767;
    static MT_INLINE Vector splat(int32_t x) { return _mm256_set1_epi32(x); }
    static MT_INLINE Vector load(const int32_t* from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    }
    static MT_INLINE void store(int32_t* to, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
    static MT_INLINE Vector largest(Vector a, Vector b) { return _mm256_max_epi32(a, b); }
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector c) {
        // Written out because GCC 12 puts all products before all sums and then has too few registers.
        Vector product;
        asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(x), "x"(c));
        return sum;
    }
    static MT_INLINE Int16 place(Int16 word, Int16 value, int i) { return word | (value & 0xffff) << (16 * i); }
    // The sums of 4 codes for 16 vectors, the 2 vectors, a code and a product fill 12 of the 16 registers.
    static void tile(const Book& book, const IntegerCodes& integers, const int32_t* x, const int32_t* bias,
                     int64_t unit, int64_t from, int64_t to, int32_t* maxima, int64_t) {
        tile_maxima_of<Words16, 4, 2>(book, integers, x, bias, unit, from, to, maxima, 16);
    }
};

static bool supported() { return cpu_features().avx2; }

static const Path kPath = {supported, rows_per_block<Words16>, make_scratch<Words16>, search<Words16>};

}  // namespace MT_ISA

const Path* avx2_path() { return &MT_ISA::kPath; }

}  // namespace multitok
