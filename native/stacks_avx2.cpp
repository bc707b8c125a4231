// AVX2: int16 products, because vpmaddubsw saturates its sums of bytes.
#define MT_ISA avx2_stacks
#include "cpu_features.h"
#include "stack_kernels.h"

namespace multitok {
namespace MT_ISA {

struct Pairs {
    using Vector = __m256i;
    static constexpr int kLanes = 8, kPixels = 2, kTail = 1, kTailSteps = 1;
    static MT_INLINE Vector splat(const char* word) { return _mm256_set1_epi32(load<int32_t>(word)); }
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
    }
};

static bool supported() { return cpu_features().avx2; }

static const StackPath kPath = {supported, 2, conv_row<Pairs, Finish<int16_t>>, quantize_row<int16_t>};

}  // namespace MT_ISA

const StackPath* stack_avx2_path() { return &MT_ISA::kPath; }

}  // namespace multitok
