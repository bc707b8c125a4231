// AVX-512 VNNI: products of four bytes and their sum in one instruction, which does not saturate.
#define MT_ISA avx512_vnni_stacks
#include "cpu_features.h"
#include "stack_wide.h"

namespace multitok {
namespace MT_ISA {

struct Fours : Tiling {
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) { return _mm512_dpbusd_epi32(sum, x, w); }
};

struct Pairs : Tiling {
    static MT_INLINE Vector dot(Vector sum, Vector x, Vector w) { return _mm512_dpwssd_epi32(sum, x, w); }
};

static void conv(const ConvRow& row) {
    row.pairs ? conv_row<Pairs, WideFinish<uint8_t>>(row) : conv_row<Fours, WideFinish<uint8_t>>(row);
}

static bool supported() { return cpu_features().avx512_vnni; }

static const StackPath kPath = {supported, 1, conv, quantize_row<uint8_t>};

}  // namespace MT_ISA

const StackPath* stack_avx512_vnni_path() { return &MT_ISA::kPath; }

}  // namespace multitok
