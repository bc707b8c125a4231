#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace multitok {

#if defined(__x86_64__)

namespace {

struct Registers {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

// Zeros where the processor has no such leaf.
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
    return r;
}

bool bit(uint32_t word, int number) { return word >> number & 1; }

// The register sets that the system saves on a switch of threads (XCR0). Only where cpuid tells of OSXSAVE.
uint64_t saved_registers() {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
}

// Linux gives the 8 KiB of tile registers only to processes that ask (kernel Documentation/arch/x86/xstate.rst).
bool request_tiles() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

// Bit numbers: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID; XCR0: volume 1, 13.3.
CpuFeatures detect() {
    CpuFeatures features;
    const Registers basic = cpuid(1, 0), extended = cpuid(7, 0), more = cpuid(7, 1);
    const bool osxsave = bit(basic.c, 27);
    if (!osxsave) return features;
    const uint64_t saved = saved_registers();
    const auto saves = [saved](uint64_t sets) { return (saved & sets) == sets; };
    constexpr uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;

    features.avx2 = saves(kYmm) && bit(basic.c, 28) && bit(basic.c, 12) && bit(extended.b, 5);  // AVX, FMA, AVX2
    features.avx_vnni = features.avx2 && bit(more.a, 4);
    features.avx512 = features.avx2 && saves(kZmm) && bit(extended.b, 16) && bit(extended.b, 30) &&
                      bit(extended.b, 17) && bit(extended.b, 31);  // F, BW, DQ, VL
    features.avx512_vnni = features.avx512 && bit(extended.c, 11);
    const bool amx = bit(extended.d, 24) && bit(extended.d, 22) && bit(more.a, 5);  // AMX-TILE, AMX-BF16, AVX512_BF16
    features.amx_bf16 = features.avx512 && amx && saves(kTiles) && request_tiles();
    return features;
}

}  // namespace

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = detect();
    return features;
}

#else

const CpuFeatures& cpu_features() {
    static const CpuFeatures none;
    return none;
}

#endif

}  // namespace multitok
