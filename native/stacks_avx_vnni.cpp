// AVX-VNNI: products of four bytes and their sum in one instruction of 256 bits, which does not saturate.
#define MT_ISA avx_vnni_stacks
#include "cpu_features.h"
#include "stack_kernels.h"

namespace multitok {
namespace MT_ISA {

struct Tiling {
    using Vector = __m256i;
    static constexpr int kLanes = 8, kPixels = 3, kTail = 1, kTailSteps = 2;
    static MT_INLINE Vector splat(const char* word) { return _mm256_set1_epi32(load<int32_t>(word)); }
};

struct Fours : Tiling {
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
};

struct Pairs : Tiling {
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) { return _mm256_dpwssd_avx_epi32(sum, x, w); }
};

static void conv(const ConvRow& row) {
    row.pairs ? conv_row<Pairs, Finish<uint8_t>>(row) : conv_row<Fours, Finish<uint8_t>>(row);
}

static bool supported() { return cpu_features().avx_vnni; }

static const StackPath kPath = {supported, 1, conv, quantize_row<uint8_t>};

}  // namespace MT_ISA

const StackPath* stack_avx_vnni_path() { return &MT_ISA::kPath; }

}  // namespace multitok
