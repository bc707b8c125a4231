// AVX-512 without VNNI: int16 products and their sums in two instructions.
#define MT_ISA avx512_stacks
#include "cpu_features.h"
#include "stack_wide.h"

namespace multitok {
namespace MT_ISA {

struct Pairs : Tiling {
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) {
        return _mm512_add_epi32(sum, _mm512_madd_epi16(x, w));
    }
};

static bool supported() { return cpu_features().avx512; }

static const StackPath kPath = {supported, 2, conv_row<Pairs, WideFinish<int16_t>>, quantize_row<int16_t>};

}  // namespace MT_ISA

const StackPath* stack_avx512_path() { return &MT_ISA::kPath; }

}  // namespace multitok
