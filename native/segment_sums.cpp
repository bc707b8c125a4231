// Counts and sums of the vectors of each code, in 64-bit integers: the same for every order, split and thread count.
//
// A value v enters as the integer nearest to d = v 2^e, ties to even. The addition d + 1.5 2^52 in float64 rounds d to
// an integer and leaves it in the low bits of the sum, for |d| <= 2^51. Larger d, up to 2^63, are first split by
// d + 1.5 2^64, which leaves a multiple of 2^12; that is even, so ties of the rest still go to even.
//
// Threads share the vectors (each adds into memory of its own, merged at the end) or, where that would take too much
// memory or time for the merge, the axis D (each adds all vectors in its own columns of `sums`). Memory beside the
// result: at most kPrivateBytes.
//
// After an error `counts` and `sums` hold part of the vectors.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "cpu_features.h"
#include "handles.h"

namespace multitok {
namespace {

#define MT_INLINE inline __attribute__((always_inline))

// Memory of all threads together for sums of their own.
constexpr int64_t kPrivateBytes = int64_t{64} << 20;
// Columns that are worth a thread: two cache lines of sums, one of float32 values.
constexpr int64_t kColumns = 16;
// Vectors that a thread takes at once.
constexpr int64_t kRows = 4096;
// Rows between the prefetch of a row of `sums` and its use.
constexpr int64_t kAhead = 8;

template <class To, class From>
MT_INLINE To bits_as(From bits) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The types of values: their bits, the bits of the magnitude, the largest finite one, and the value in float64.
struct Float64 {
    using Bits = uint64_t;
    static constexpr Bits kMagnitude = 0x7fffffffffffffff, kFinite = 0x7fefffffffffffff;
    static MT_INLINE double value(Bits bits) { return bits_as<double>(bits); }
};

struct Float32 {
    using Bits = uint32_t;
    static constexpr Bits kMagnitude = 0x7fffffff, kFinite = 0x7f7fffff;
    static MT_INLINE double value(Bits bits) { return bits_as<float>(bits); }
};

struct BFloat16 {
    using Bits = uint16_t;
    static constexpr Bits kMagnitude = 0x7fff, kFinite = 0x7f7f;
    static MT_INLINE double value(Bits bits) { return bits_as<float>(static_cast<uint32_t>(bits) << 16); }
};

struct Float16 {
    using Bits = uint16_t;
    static constexpr Bits kMagnitude = 0x7fff, kFinite = 0x7bff;
    static MT_INLINE double value(Bits bits) {
        const uint32_t shifted = static_cast<uint32_t>(bits & kMagnitude) << 13;
        const float normal = bits_as<float>(shifted + (112u << 23));
        // The fraction of a subnormal number, put behind a leading 1 that is taken away again.
        const float subnormal = bits_as<float>(shifted | (113u << 23)) - 0x1p-14f;
        const uint32_t magnitude = bits_as<uint32_t>((bits & 0x7c00) ? normal : subnormal);
        return bits_as<float>(magnitude | static_cast<uint32_t>(bits & 0x8000) << 16);
    }
};

// What is the same for every part of one call. `sums` and `counts` are the caller's.
struct Call {
    const void* vectors;
    int64_t count, dim, row_stride;
    const int32_t* codes;
    double scale;                // 2^exponent
    uint64_t one_step;           // magnitudes, as bits, up to which one rounding addition is enough
    uint64_t two_steps;          // and up to which two are
    int64_t sums_bytes;
    std::atomic<int64_t>* first_bad;
    std::atomic<bool>* too_large;
};

// One part: rows [row, row_end) and columns [column, column_end), added to `sums`; to `counts` where not null.
struct Part {
    int64_t row, row_end, column, column_end;
    int64_t* counts;
    int64_t* sums;
};

MT_INLINE int64_t rounded(double scaled) {
    return bits_as<int64_t>(scaled + 0x1.8p52) - bits_as<int64_t>(0x1.8p52);
}

MT_INLINE int64_t rounded_in_two_steps(double scaled) {
    const double coarse = scaled + 0x1.8p64;
    const int64_t upper = bits_as<int64_t>(coarse) - bits_as<int64_t>(0x1.8p64);
    return upper * 4096 + rounded(scaled - (coarse - 0x1.8p64));
}

// Adds W values, or none of them. False where one is not finite.
template <class T, int W>
MT_INLINE bool add_values(const Call& call, const typename T::Bits* values, int64_t* sums) {
    typename T::Bits largest = 0;
    for (int i = 0; i < W; i++) {
        const typename T::Bits magnitude = values[i] & T::kMagnitude;
        largest = magnitude > largest ? magnitude : largest;
    }
    if (__builtin_expect(largest <= call.one_step, 1)) {
        for (int i = 0; i < W; i++) sums[i] += rounded(T::value(values[i]) * call.scale);
    } else if (largest <= call.two_steps) {
        for (int i = 0; i < W; i++) sums[i] += rounded_in_two_steps(T::value(values[i]) * call.scale);
    } else if (largest > T::kFinite) {
        return false;
    } else {
        call.too_large->store(true, std::memory_order_relaxed);
    }
    return true;
}

template <class T>
MT_INLINE bool add_row(const Call& call, const typename T::Bits* values, int64_t* sums, int64_t width) {
    bool finite = true;
    for (; width >= 16; width -= 16, values += 16, sums += 16) finite &= add_values<T, 16>(call, values, sums);
    if (width >= 8) {
        finite &= add_values<T, 8>(call, values, sums);
        width -= 8, values += 8, sums += 8;
    }
    if (width >= 4) {
        finite &= add_values<T, 4>(call, values, sums);
        width -= 4, values += 4, sums += 4;
    }
    for (int64_t i = 0; i < width; i++) finite &= add_values<T, 1>(call, values + i, sums + i);
    return finite;
}

template <class T>
MT_INLINE void add_rows(const Call& call, const Part& part) {
    const auto* vectors = static_cast<const typename T::Bits*>(call.vectors);
    const int64_t width = part.column_end - part.column;
    int64_t* const sums = part.sums + part.column;
    const bool far_sums = call.sums_bytes > 1 << 20;
    for (int64_t row = part.row; row < part.row_end; row++) {
        if (far_sums && row + kAhead < part.row_end) {
            const int64_t* const next = sums + call.codes[row + kAhead] * call.dim;
            for (int64_t i = 0; i < width; i += 8) __builtin_prefetch(next + i, 1);
        }
        const auto* const values = vectors + row * call.row_stride + part.column;
        if (!add_row<T>(call, values, sums + call.codes[row] * call.dim, width)) {
            int64_t first = call.first_bad->load();
            while (row < first && !call.first_bad->compare_exchange_weak(first, row)) {}
            return;
        }
    }
    if (part.counts == nullptr) return;
    for (int64_t row = part.row; row < part.row_end; row++) part.counts[call.codes[row]]++;
}

// The same for each instruction set that makes it faster; always_inline lets add_rows take theirs.
using AddRows = void (*)(const Call&, const Part&);

template <class T>
void add_rows_portable(const Call& call, const Part& part) {
    add_rows<T>(call, part);
}

#if defined(__x86_64__)
template <class T>
__attribute__((target("avx2"))) void add_rows_avx2(const Call& call, const Part& part) {
    add_rows<T>(call, part);
}

template <class T>
__attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl"))) void add_rows_avx512(const Call& call,
                                                                                        const Part& part) {
    add_rows<T>(call, part);
}
#endif

template <class T>
AddRows prepare(Call* call) {
    // The largest magnitude whose scaled value is at most `bound`; values grow with their bits.
    const auto up_to = [call](double bound) {
        uint64_t low = 0, high = T::kFinite;
        while (low < high) {
            const uint64_t middle = low + (high - low + 1) / 2;
            if (T::value(static_cast<typename T::Bits>(middle)) * call->scale <= bound) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        return low;
    };
    call->one_step = up_to(0x1p51);
    call->two_steps = up_to(0x1.fffffffffffffp62);
#if defined(__x86_64__)
    if (cpu_features().avx512) return add_rows_avx512<T>;
    if (cpu_features().avx2) return add_rows_avx2<T>;
#endif
    return add_rows_portable<T>;
}

bool all_below(const int32_t* codes, int64_t count, int64_t size) {
    uint32_t largest = 0;  // negative codes become large
    for (int64_t i = 0; i < count; i++) largest = std::max(largest, static_cast<uint32_t>(codes[i]));
    return count == 0 || largest < size;
}

// Each thread takes columns of its own.
void share_columns(ThreadPool* pool, int64_t slices, const Call& call, AddRows add, int64_t* counts, int64_t* sums) {
    const int64_t width = (call.dim + slices * kColumns - 1) / (slices * kColumns) * kColumns;
    for_blocks(pool, slices, [&](int) {
        return [&](int64_t slice) {
            const int64_t column = std::min(slice * width, call.dim), end = std::min(column + width, call.dim);
            add(call, {0, call.count, column, end, slice == 0 ? counts : nullptr, sums});
        };
    });
}

// Each thread takes vectors; the first adds to the result, the others to memory of their own.
void share_rows(ThreadPool* pool, int workers, int64_t size, const Call& call, AddRows add, int64_t* counts,
                int64_t* sums) {
    std::vector<std::vector<int64_t>> own(static_cast<size_t>(workers));
    std::atomic<int64_t> next{0};
    const auto work = [&](int worker) {
        int64_t row = next.fetch_add(kRows);
        if (row >= call.count) return;
        int64_t *own_counts = counts, *own_sums = sums;
        if (worker > 0) {
            std::vector<int64_t>& memory = own[static_cast<size_t>(worker)];
            memory.resize(static_cast<size_t>(size * (call.dim + 1)));
            own_counts = memory.data(), own_sums = own_counts + size;
        }
        for (; row < call.count; row = next.fetch_add(kRows)) {
            add(call, {row, std::min(row + kRows, call.count), 0, call.dim, own_counts, own_sums});
        }
    };
    pool->run(workers, work);
    for (const std::vector<int64_t>& memory : own) {
        if (memory.empty()) continue;
        for (int64_t i = 0; i < size; i++) counts[i] += memory[static_cast<size_t>(i)];
        for (int64_t i = 0; i < size * call.dim; i++) sums[i] += memory[static_cast<size_t>(size + i)];
    }
}

void share(ThreadPool* pool, int64_t size, const Call& call, AddRows add, int64_t* counts, int64_t* sums) {
    const int64_t threads = pool == nullptr ? 1 : pool->threads();
    // Whole vectors are read faster than pieces of them. Memory of its own pays where a thread has far more vectors
    // than there are codes to merge.
    const int64_t affordable = 1 + kPrivateBytes / (size * (call.dim + 1) * int64_t{sizeof(int64_t)});
    const int64_t by_rows = std::min({threads, affordable, call.count / (16 * size)});
    const int64_t by_columns = std::min(threads, call.dim / kColumns);
    if (by_rows > 1 && by_rows >= by_columns) {
        share_rows(pool, static_cast<int>(by_rows), size, call, add, counts, sums);
    } else if (by_columns > 1) {
        share_columns(pool, by_columns, call, add, counts, sums);
    } else {
        add(call, {0, call.count, 0, call.dim, counts, sums});
    }
}

}  // namespace
}  // namespace multitok

extern "C" int32_t mt_segment_sums(mt_pool* pool, const void* vectors, int32_t type, int64_t count, int64_t dim,
                                   int64_t row_stride, const int32_t* codes, int64_t size, int32_t exponent,
                                   int64_t* counts, int64_t* sums, int64_t* bad_row) {
    using namespace multitok;
    if (exponent < -1022 || exponent > 1023 || !all_below(codes, count, size)) return MT_UNSUPPORTED;
    std::atomic<int64_t> first_bad{INT64_MAX};
    std::atomic<bool> too_large{false};
    Call call{vectors, count, dim, row_stride, codes, std::ldexp(1.0, exponent), 0, 0,
              size * dim * int64_t{sizeof(int64_t)}, &first_bad, &too_large};
    AddRows add = nullptr;
    switch (type) {
        case MT_FLOAT32: add = prepare<Float32>(&call); break;
        case MT_FLOAT64: add = prepare<Float64>(&call); break;
        case MT_FLOAT16: add = prepare<Float16>(&call); break;
        case MT_BFLOAT16: add = prepare<BFloat16>(&call); break;
        default: return MT_UNSUPPORTED;
    }
    try {
        share(pool == nullptr ? nullptr : &pool->pool, size, call, add, counts, sums);
    } catch (const std::bad_alloc&) {
        return MT_OUT_OF_MEMORY;
    }
    if (first_bad.load() != INT64_MAX) {
        *bad_row = first_bad.load();
        return MT_NOT_FINITE;
    }
    return too_large.load() ? MT_UNSUPPORTED : MT_OK;
}
