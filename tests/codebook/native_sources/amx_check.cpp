// amx_search.cpp with its parts laid open to test_amx.py, and a processor that has AMX and nothing else, so that the C
// interface searches with it too. Compiled in two ways:
//     as it is       on tile instructions in software, amx_emulation.h
//     -DAMX_TRAP     with the real instructions; where the processor lacks them, amx_trap.h does what they say
// cpu_features.cpp is compiled with its function renamed, see below.
#if defined(AMX_TRAP)
#include "amx_search.cpp"
#include "amx_trap.h"
#else
#define MT_TILE_INSTRUCTIONS "amx_emulation.h"
#include "amx_search.cpp"
#endif

namespace multitok {

const CpuFeatures& cpu_features_of_this_processor();

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = [] {
        CpuFeatures made;
        made.amx_bf16 = true;
        return made;
    }();
    return features;
}

}  // namespace multitok

using namespace multitok;

extern "C" {

// The first mistake in the use of the tiles, or null; also tiles that a search left configured.
MT_EXPORT const char* amx_fault() {
    if (amx_emulation::configured != 0) amx_emulation::fault("tiles stay configured after a search");
    return amx_emulation::first_fault;
}

// 1 where the tile instructions are those of the processor.
MT_EXPORT int32_t amx_is_real() {
#if defined(AMX_TRAP)
    return cpu_features_of_this_processor().amx_bf16;
#else
    return 0;
#endif
}

// Around every search: 1, then 0. Gives the number of instructions trapped so far.
MT_EXPORT int64_t amx_trap_instructions(int32_t on) {
#if defined(AMX_TRAP)
    if (!amx_is_real()) on ? amx_trap::install() : amx_trap::remove();
    return amx_trap::instructions;
#else
    return on & 0;
#endif
}

// Sets the rounding and denormal modes of this thread's vector arithmetic (MXCSR); gives the ones before.
MT_EXPORT uint32_t amx_set_modes(uint32_t modes) {
    const uint32_t before = _mm_getcsr();
    _mm_setcsr(modes);
    return before;
}

// A book prepared for AMX, or null where it is not bounded.
MT_EXPORT Book* amx_open(const void* values, int32_t type, int64_t size, int64_t dim, int32_t metric) {
    Book* book = new Book;
    Forms forms;
    forms.shifted = true;
    if (prepare(values, type, size, dim, metric, forms, book) >= 0 || !book->bounded) {
        delete book;
        return nullptr;
    }
    book->tile = make_tile_book(*book);
    return book;
}

MT_EXPORT void amx_close(Book* book) { delete book; }

MT_EXPORT void amx_centre(const Book* book, float* centre) {
    __builtin_memcpy(centre, book->centre.data(), static_cast<size_t>(book->dim) * sizeof(float));
}

// Groups that share a maximum.
MT_EXPORT int64_t amx_unit(const Book* book) {
    Scratch* scratch = amx::make_scratch(*book, 1);
    const int64_t unit = static_cast<amx::TileScratch*>(scratch)->decide.unit;
    delete scratch;
    return unit;
}

MT_EXPORT int64_t amx_rows_per_block(const Book* book) { return amx::rows_per_block(*book); }

// maxima [count, units] and slack [count] of float32 rows.
MT_EXPORT void amx_propose(const Book* book, const float* values, int64_t count, float* maxima, float* slack) {
    Scratch* made = amx::make_scratch(*book, 1);
    auto& scratch = static_cast<amx::TileScratch&>(*made);
    const Rows rows{values, book->dim, nullptr, 0, book->centre.data(), count};
    const int64_t block = 32 * scratch.pairs, units = scratch.decide.unit_count;
    const amx::Rounding rounding;
    const amx::Tiles tiles;
    for (int64_t first = 0; first < count; first += block) {
        const int64_t here = count - first < block ? count - first : block;
        amx::propose(*book, *book->tile, rows, first, here, scratch);
        for (int64_t i = 0; i < here; i++) {
            slack[first + i] = scratch.slack[i];
            for (int64_t u = 0; u < units; u++) {
                maxima[(first + i) * units + u] = scratch.maxima[(i / 32 * scratch.maxima_stride + u) * 32 + i % 32];
            }
        }
    }
    delete made;
}

}  // extern "C"
