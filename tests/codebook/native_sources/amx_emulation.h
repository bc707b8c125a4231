// The tile instructions of AMX in software, for processors that lack them, stricter than the processor where a program
// would get away with a mistake: tiles are poisoned when they are configured, and any use that the processor would
// refuse, or that reads a tile before it was loaded or cleared, is counted and told by amx_fault().
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and volume 2, LDTILECFG,
// TILELOADD, TILESTORED, TILEZERO, TILERELEASE, TDPBF16PS.
//
// AMX_ORDER picks the order of the sums in TDPBF16PS; the bound of native/amx.h has to hold in each:
//     0  as the manual says: even and odd values in two chains of fused multiply-adds, their sum added to the tile
//     1  products rounded, added to the tile one after the other, the last value first
//     2  pairs of rounded products added to each other, the sums of pairs added in a balanced tree, that to the tile
#pragma once

#include <immintrin.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig amx_emulation::load_config
#define _tile_release amx_emulation::release
#define _tile_zero amx_emulation::zero
#define _tile_loadd amx_emulation::load
#define _tile_stored amx_emulation::store
#define _tile_dpbf16ps amx_emulation::multiply_bfloat16

#ifndef AMX_ORDER
#define AMX_ORDER 0
#endif

namespace amx_emulation {

// Shared by all threads. The first fault stays.
inline std::atomic<const char*> first_fault{nullptr};
inline std::atomic<int> configured{0};  // threads whose tiles are configured

inline bool fault(const char* what) {
    const char* none = nullptr;
    first_fault.compare_exchange_strong(none, what);
    return false;
}

struct Tile {
    int lines = 0, bytes = 0;
    bool loaded = false;
    alignas(64) uint32_t line[16][16];
};

inline thread_local Tile tiles[8];
inline thread_local bool is_configured = false;

inline bool usable(int number, bool reads) {
    if (!is_configured) return fault("a tile is used that is not configured");
    const Tile& tile = tiles[number];
    if (tile.lines == 0) return fault("a tile is used that the configuration leaves out");
    if (tile.bytes % 4) return fault("lines that are no multiple of 4 bytes");
    if (reads && !tile.loaded) return fault("a tile is read that was never loaded or cleared");
    return true;
}

inline void load_config(const void* from) {
    uint8_t config[64];
    std::memcpy(config, from, 64);
    for (int i = 2; i < 64; i++) {
        const bool used = (i >= 16 && i < 32) || (i >= 48 && i < 56);
        if (!used && config[i]) return (void)fault("reserved bytes of the configuration are not 0");
    }
    if (config[0] != 1) return (void)fault("unknown palette");
    if (config[1]) return (void)fault("loads start at a line other than the first");
    for (int i = 0; i < 8; i++) {
        Tile& tile = tiles[i];
        tile.lines = config[48 + i];
        tile.bytes = config[16 + 2 * i] | config[17 + 2 * i] << 8;
        if (tile.lines > 16 || tile.bytes > 64) return (void)fault("a tile is configured too large");
        if ((tile.lines == 0) != (tile.bytes == 0)) return (void)fault("a tile is configured half empty");
        tile.loaded = false;
        std::memset(tile.line, 0xff, sizeof tile.line);  // NaN, as float32 and as bfloat16
    }
    if (!is_configured) configured++;
    is_configured = true;
}

inline void release() {
    if (!is_configured) return (void)fault("tiles are released that are not configured");
    is_configured = false;
    configured--;
}

inline void zero(int number) {
    if (!usable(number, false)) return;
    std::memset(tiles[number].line, 0, sizeof tiles[number].line);
    tiles[number].loaded = true;
}

inline void load(int number, const void* from, int64_t stride) {
    if (!usable(number, false)) return;
    Tile& tile = tiles[number];
    std::memset(tile.line, 0, sizeof tile.line);
    for (int i = 0; i < tile.lines; i++) {
        std::memcpy(tile.line[i], static_cast<const char*>(from) + i * stride, static_cast<size_t>(tile.bytes));
    }
    tile.loaded = true;
}

inline void store(int number, void* to, int64_t stride) {
    if (!usable(number, true)) return;
    const Tile& tile = tiles[number];
    for (int i = 0; i < tile.lines; i++) {
        std::memcpy(static_cast<char*>(to) + i * stride, tile.line[i], static_cast<size_t>(tile.bytes));
    }
}

// 16 lanes of float32, to nearest even whatever the thread is set to; denormals count as 0, in and out.
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

inline __m512 flush(__m512 x) {
    const __m512i magnitude = _mm512_and_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    const __mmask16 denormal = _mm512_cmplt_epu32_mask(magnitude, _mm512_set1_epi32(0x00800000));
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(
        _mm512_mask_and_epi32(_mm512_castps_si512(x), denormal, _mm512_castps_si512(x), sign));
}
inline __m512 add(__m512 a, __m512 b) { return flush(_mm512_add_round_ps(flush(a), flush(b), kNearest)); }
inline __m512 product(__m512 a, __m512 b) { return flush(_mm512_mul_round_ps(flush(a), flush(b), kNearest)); }
inline __m512 fused(__m512 a, __m512 b, __m512 sum) {
    return flush(_mm512_fmadd_round_ps(flush(a), flush(b), flush(sum), kNearest));
}

// The even (0) or odd (1) bfloat16 of each lane, or of one for all, as float32.
inline __m512 bfloat16_of(__m512i pairs, int odd) {
    return _mm512_castsi512_ps(odd ? _mm512_and_epi32(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u)))
                                   : _mm512_slli_epi32(pairs, 16));
}

// sums[m][n] += the products of the pairs left[m][k] and right[k][n], over k.
inline void multiply_bfloat16(int sums, int left, int right) {
    if (sums == left || sums == right || left == right) return (void)fault("one tile is used twice in a product");
    if (!usable(sums, true) || !usable(left, true) || !usable(right, true)) return;
    Tile &c = tiles[sums], &a = tiles[left], &b = tiles[right];
    if (c.lines != a.lines || c.bytes != b.bytes || a.bytes / 4 != b.lines) {
        return (void)fault("the shapes of the tiles of a product do not fit");
    }
    const int pairs = b.lines, lanes = c.bytes / 4;
    const __mmask16 there = static_cast<__mmask16>((1u << lanes) - 1);
    for (int m = 0; m < c.lines; m++) {
        const auto term = [&](int k, int odd) { return bfloat16_of(_mm512_set1_epi32(a.line[m][k]), odd); };
        const auto line = [&](int k, int odd) { return bfloat16_of(_mm512_load_si512(b.line[k]), odd); };
        __m512 sum = _mm512_load_ps(c.line[m]);
        if (AMX_ORDER == 0) {
            __m512 even = _mm512_setzero_ps(), odd = even;
            for (int k = 0; k < pairs; k++) {
                even = fused(term(k, 0), line(k, 0), even);
                odd = fused(term(k, 1), line(k, 1), odd);
            }
            sum = add(sum, add(even, odd));
        } else if (AMX_ORDER == 1) {
            for (int k = pairs - 1; k >= 0; k--) {
                for (int odd = 1; odd >= 0; odd--) sum = add(sum, product(term(k, odd), line(k, odd)));
            }
        } else {
            __m512 tree[16];
            for (int k = 0; k < 16; k++) {
                tree[k] = k < pairs ? add(product(term(k, 0), line(k, 0)), product(term(k, 1), line(k, 1)))
                                    : _mm512_setzero_ps();
            }
            for (int half = 8; half > 0; half /= 2) {
                for (int k = 0; k < half; k++) tree[k] = add(tree[k], tree[k + half]);
            }
            sum = add(sum, tree[0]);
        }
        _mm512_store_ps(c.line[m], _mm512_maskz_mov_ps(there, sum));
    }
}

}  // namespace amx_emulation
