// A prepared codebook: the codes as given, and the forms in which the search paths read them.
#pragma once

#include <cstdint>
#include <memory>

#include "multitok_codebook.h"

namespace multitok {

// Codes are searched in groups of this many, one code a lane.
constexpr int64_t kGroup = 16;

// Zeroed memory on a cache line, so that vector loads never cross one. Every method is inlined by force: files compiled
// for different instruction sets share this header, and the linker keeps only one copy of a function that is not.
#define MT_INLINE inline __attribute__((always_inline))

void* allocate_zeroed(size_t bytes);  // throws std::bad_alloc
void release(void* memory);

template <class T>
class Aligned {
  public:
    MT_INLINE Aligned() {}
    MT_INLINE explicit Aligned(int64_t count) { reset(count); }
    MT_INLINE ~Aligned() { release(data_); }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    MT_INLINE void reset(int64_t count) {
        release(data_);
        data_ = nullptr;
        data_ = static_cast<T*>(allocate_zeroed(static_cast<size_t>(count) * sizeof(T)));
        count_ = count;
    }
    MT_INLINE T* data() { return data_; }
    MT_INLINE const T* data() const { return data_; }
    MT_INLINE int64_t size() const { return count_; }
    MT_INLINE int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(T)); }
    MT_INLINE T& operator[](int64_t i) { return data_[i]; }
    MT_INLINE const T& operator[](int64_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
    int64_t count_ = 0;
};

// Codes as integers on one step, for the paths that multiply int16 or int8 values; the bound stands in integer.h.
struct IntegerCodes {
    int per_word = 0;            // values in a 32-bit word: 2 int16 or 4 int8
    int64_t words = 0;           // words a code
    double step = 0;             // what one integer stands for
    double largest_error = 0;    // >= |b - step * integers| of every code
    Aligned<int32_t> codes;      // [padded V][words]
    Aligned<int32_t> offset;     // [padded V] 128 * sum of the integers where x is held unsigned (int8), else 0
    bool prepared() const { return words > 0; }
};

struct TreeBook;  // tree.h
struct TileBook;  // amx.h

struct Book {
    int64_t size = 0, dim = 0;
    int64_t groups = 0;          // of kGroup codes; the last may be part empty
    int32_t metric = MT_L2;
    bool is_double = false;      // values given as float64: decisions read `exact_lanes`

    Aligned<float> lanes;        // [groups][D][kGroup] the values given, one code a lane, padded lanes 0; unless is_double
    Aligned<double> exact_lanes; // the same where is_double
    Aligned<float> rows;         // [V, D] the values given, rounded where is_double; only for the paths that read it
    Aligned<double> norms;       // [padded V] sqrt(sum c^2) in the order of D, only for MT_COSINE; padded: 0

    // b: a code as the proposing pass sees it, in reals: c - centre (MT_L2), c (MT_DOT), c / |c| (MT_COSINE).
    Aligned<float> centre;       // [D], 0 where not MT_L2
    Aligned<float> shifted;      // [padded V, D] b rounded to float32, padded rows 0; only for the paths that read it
    Aligned<float> half_norm;    // [padded V] |b|^2 / 2 rounded to float32 (MT_L2), else 0; padded: 3e38
    double largest_norm = 0;     // >= |b| of every code
    double largest_value = 0;    // >= |b_d| of every code
    double shift_error = 0;      // >= |b - shifted| of every code
    bool bounded = true;         // false: magnitudes at which no bound holds; every vector is compared with every code

    IntegerCodes int16, int8;    // prepared where a path reads them
    // Blocks to propose by int16 before int8 is tried again. Searches write it, several at once, by atomic operations; it
    // changes speed only.
    mutable int32_t int16_blocks = 0;
    mutable std::shared_ptr<TreeBook> tree;  // made when it has begun to pay, see api.cpp
    std::shared_ptr<TileBook> tile;

    int64_t padded() const { return groups * kGroup; }
    int64_t bytes() const;
};

// Forms of the codes to prepare beside the lanes, which every path reads.
struct Forms {
    bool rows = false, shifted = false, int16 = false, int8 = false;
};

// Throws std::bad_alloc; returns the first row that is not finite, or -1.
int64_t prepare(const void* values, int32_t type, int64_t size, int64_t dim, int32_t metric, const Forms& forms,
                Book* book);

}  // namespace multitok
