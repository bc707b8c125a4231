// A prepared codebook: the codes as given, and the forms in which the search paths read them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "multitok_codebook.h"

namespace multitok {

// Codes are searched in groups of this many, one code a lane.
constexpr int64_t kGroup = 16;

// Zeroed memory on a cache line, so that vector loads never cross one.
template <class T>
class Aligned {
  public:
    Aligned() = default;
    explicit Aligned(int64_t count) { reset(count); }
    void reset(int64_t count) {
        const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 127) / 64 * 64;
        data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        if (!data_) throw std::bad_alloc();
        __builtin_memset(data_.get(), 0, bytes);
        count_ = count;
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    int64_t size() const { return count_; }
    int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }
    T& operator[](int64_t i) { return data_.get()[i]; }
    const T& operator[](int64_t i) const { return data_.get()[i]; }

  private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    int64_t count_ = 0;
};

// Codes rounded to integers on one step (int16 or int8 products), see proposal.h for the bound.
struct IntegerCodes {
    int words = 0;               // 32-bit words a code: 2 int16 or 4 int8 values each
    double step = 0;             // value of one integer step
    double largest_norm = 0;     // >= |b^| of every rounded code
    double largest_error = 0;    // >= |b - b^| of every code
    Aligned<int32_t> words_of;   // [padded V, words]
    Aligned<double> half_norm;   // [padded V] |b|^2 / 2 (MT_L2), 0 otherwise; in units of value^2
    Aligned<int32_t> bias;       // [padded V] integers added to every score (the int8 offset of x), else 0
};

struct TreeBook;  // tree.h
struct TileBook;  // amx.h

struct Book {
    int64_t size = 0, dim = 0;
    int64_t groups = 0;          // of kGroup codes; the last may be part empty
    int32_t metric = MT_L2, type = MT_FLOAT32;
    int32_t path = MT_AUTO;      // as asked for
    bool is_double = false;      // values given as float64: decisions read `exact`

    Aligned<float> rows;         // [V, D] values as given, rounded where they are float64
    Aligned<double> exact;       // [V, D], only where is_double
    Aligned<float> lanes;        // [groups][D][kGroup] the same as `rows`, one code a lane; padded lanes 0
    Aligned<double> norms;       // [V] sqrt(sum c^2) in the order of D, only for MT_COSINE

    // b: a code as the proposing pass sees it, in reals: c - centre (MT_L2), c (MT_DOT), c / |c| (MT_COSINE).
    Aligned<float> centre;       // [D], 0 where not MT_L2
    Aligned<float> shifted;      // [padded V, D] b rounded to float32, padded rows 0
    Aligned<float> half_norm;    // [padded V] |b|^2 / 2 rounded to float32 (MT_L2), else 0; padded: 3e38
    double largest_norm = 0;     // >= |b| of every code
    double shift_error = 0;      // >= |b - shifted| of every code
    bool bounded = true;         // false: magnitudes at which no bound holds; every vector is compared with every code

    IntegerCodes int16, int8;    // prepared where a path reads them
    std::shared_ptr<TreeBook> tree;
    std::shared_ptr<TileBook> tile;

    int64_t padded() const { return groups * kGroup; }
    int64_t bytes() const;
};

// Throws std::bad_alloc; returns the first row that is not finite, or -1.
int64_t prepare(const void* values, int32_t type, int64_t size, int64_t dim, int32_t metric, int32_t path, Book* book);

}  // namespace multitok
