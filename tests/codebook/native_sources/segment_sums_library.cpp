// mt_segment_sums with the instruction sets that a test allows, and a pool to call it with.
#include "cpu_features.h"
#include "handles.h"

namespace {
multitok::CpuFeatures allowed;
}

const multitok::CpuFeatures& multitok::cpu_features() { return allowed; }

extern "C" {
MT_EXPORT void allow(int32_t avx2, int32_t avx512) {
    allowed.avx2 = avx2 != 0;
    allowed.avx512 = avx512 != 0;
}
MT_EXPORT mt_pool* mt_pool_new(int32_t threads) { return new mt_pool(threads); }
MT_EXPORT void mt_pool_free(mt_pool* pool) { delete pool; }
}
