// Any processor: int16 products, by the instruction that every x86-64 has or in compiler vectors.
#define MT_ISA portable_stacks
#include "stack_kernels.h"

namespace multitok {
namespace MT_ISA {

struct Pairs {
    static constexpr int kLanes = 4, kPixels = 1, kTail = 1, kTailSteps = 1;
#if defined(__SSE2__)
    using Vector = __m128i;
    static MT_INLINE Vector splat(const char* word) { return _mm_set1_epi32(load<int32_t>(word)); }
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) { return _mm_add_epi32(sum, _mm_madd_epi16(x, w)); }
#else
    typedef int32_t Vector __attribute__((vector_size(16)));
    static MT_INLINE Vector splat(const char* word) { return load<int32_t>(word) - Vector{}; }
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) {
        const Vector left = ((x << 16) >> 16) * ((w << 16) >> 16), right = (x >> 16) * (w >> 16);
        return sum + left + right;
    }
#endif
};

static bool supported() { return true; }

static const StackPath kPath = {supported, 2, conv_row<Pairs, Finish<int16_t>>, quantize_row<int16_t>};

}  // namespace MT_ISA

const StackPath* stack_portable_path() { return &MT_ISA::kPath; }

}  // namespace multitok
