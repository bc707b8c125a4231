// What every search path is given and gives: rows of vectors in, codes out.
#pragma once

#include <cstdint>

#include "book.h"

namespace multitok {

// A block of vectors, finite. Given as float32 (or as what float32 holds exactly), `values` are they and `exact` is null.
// Given as float64, `exact` are they, and `values` are rounded after the codebook's centre was subtracted, so that
// nothing but that one rounding stands between x - centre and them. A path subtracts `centre` from `values`.
struct Rows {
    const float* values;         // row r at values + r * stride
    int64_t stride;
    const double* exact;         // row r at exact + r * exact_stride
    int64_t exact_stride;
    const float* centre;         // [D] the codebook's centre, or zeros where it is subtracted already
    int64_t count;
    const float* row(int64_t r) const { return values + r * stride; }
    const double* exact_row(int64_t r) const { return exact ? exact + r * exact_stride : nullptr; }
};

// Where a block's results go; row r of the block at codes + r * nearest.
struct Results {
    int64_t nearest;             // codes a row, 1 to 16
    int32_t* codes;
    double* distances;           // null where not asked for
    mt_statistics* statistics;   // of this worker, never null
};

// One worker's memory, reused from block to block. Derived by each path.
class Scratch {
  public:
    virtual ~Scratch() = default;
};

// The functions of one path. `rows_per_block`: how many rows it likes at once (more is cut up by the caller).
struct Path {
    bool (*supported)();
    int64_t (*rows_per_block)(const Book&);
    Scratch* (*make_scratch)(const Book&, int64_t rows);  // for blocks of at most so many rows
    void (*search)(const Book&, const Rows&, const Results&, Scratch&);
};

// One of each is defined in its own file, compiled for its instruction set, or missing from the build.
const Path* portable_path();
const Path* avx2_path();
const Path* avx512_path();
const Path* avx512_vnni_path();
const Path* amx_path();
const Path* tree_avx2_path();
const Path* tree_avx512_path();

}  // namespace multitok
