// What this processor and this system allow at run time.
#pragma once

namespace multitok {

// Each field means: the instructions exist, and the system saves the registers they use. All false where not x86-64.
struct CpuFeatures {
    bool avx2 = false;         // AVX2 and FMA
    bool avx_vnni = false;     // AVX-VNNI, and `avx2`
    bool avx512 = false;       // AVX-512 F, BW, DQ and VL, and `avx2`
    bool avx512_vnni = false;  // AVX512_VNNI, and `avx512`
    bool amx_bf16 = false;     // AMX tiles of bfloat16 and AVX512_BF16, permitted by the system, and `avx512`
};

// Asked of the processor once. Asks Linux for the permission to use AMX tiles, which holds for the whole process.
const CpuFeatures& cpu_features();

}  // namespace multitok
