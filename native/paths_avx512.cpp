// AVX-512 without VNNI: int16 products and their sums in two instructions.
#define MT_ISA avx512
#include "cpu_features.h"
#include "wide.h"

namespace multitok {
namespace MT_ISA {

struct Words16 : Wide {
    static constexpr int kPerWord = 2, kCodesOfOne = 8;
    static constexpr float kMost = 32767;
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector c) {
        // Written out because GCC 12 puts all products before all sums and then has too few registers.
        Vector product;
        asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(x), "v"(c));
        return sum;
    }
    static MT_INLINE Int16 place(Int16 word, Int16 value, int i) { return word | (value & 0xffff) << (16 * i); }
    static constexpr auto tile = tile_of<Words16>;
};

static bool supported() { return cpu_features().avx512; }

static const Path kPath = {supported, rows_per_block<Words16>, make_scratch<Words16>, search<Words16>};

}  // namespace MT_ISA

const Path* avx512_path() { return &MT_ISA::kPath; }

}  // namespace multitok
