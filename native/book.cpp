#include "book.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "values.h"

namespace multitok {
namespace {

// Norms at which float32 sums of squares neither overflow nor lose their bound; see integer.h.
constexpr double kLeastNorm = 1e-14, kMostNorm = 1e15;
// Norm and component that codes are scaled to; integer.h derives the first.
constexpr double kNorm16 = 22900, kMost8 = 127;
constexpr int64_t kMostDim16 = int64_t{1} << 20, kMostDim8 = 8192;

// b of one code, in reals up to 2^-53 of each value (and, for MT_COSINE, the rounding of the norm).
void shift(const Book& book, const double* code, double norm, double* b) {
    for (int64_t d = 0; d < book.dim; d++) {
        if (book.metric == MT_L2) b[d] = code[d] - static_cast<double>(book.centre[d]);
        if (book.metric == MT_DOT) b[d] = code[d];
        if (book.metric == MT_COSINE) b[d] = norm > 0 ? code[d] / norm : 0;
    }
}

double norm_of(const double* values, int64_t count) {
    double sum = 0;
    for (int64_t d = 0; d < count; d++) sum += values[d] * values[d];
    return std::sqrt(sum);
}

// Rounds the code `b` to integers on `codes.step`, row k of `codes`.
void round_code(const double* b, int64_t dim, int64_t k, IntegerCodes* codes) {
    const double q = codes->step;
    int32_t* words = codes->codes.data() + k * codes->words;
    double error = 0;
    int64_t sum = 0;
    for (int64_t d = 0; d < dim; d++) {
        const int32_t integer = static_cast<int32_t>(std::nearbyint(b[d] / q));
        const double off = b[d] - q * integer;
        error += off * off;
        sum += integer;
        const int bits = 32 / codes->per_word;
        const uint32_t mask = (1u << bits) - 1;
        words[d / codes->per_word] |= static_cast<int32_t>((static_cast<uint32_t>(integer) & mask)
                                                           << (bits * (d % codes->per_word)));
    }
    // 2^-40 of the whole covers the roundings of float64 in b and here.
    error = std::sqrt(error) * (1 + 0x1p-40) + norm_of(b, dim) * (static_cast<double>(dim) + 8) * 0x1p-52;
    codes->largest_error = std::fmax(codes->largest_error, error);
    if (codes->per_word == 4) codes->offset[k] = static_cast<int32_t>(128 * sum);
}

void start_integers(int per_word, double step, const Book& book, IntegerCodes* codes) {
    codes->per_word = per_word;
    codes->words = (book.dim + per_word - 1) / per_word;
    codes->step = step > 0 ? step : 1;
    codes->codes.reset(book.padded() * codes->words);
    codes->offset.reset(book.padded());
}

}  // namespace

void* allocate_zeroed(size_t bytes) {
    // 64 bytes more than asked for, so that a vector load may start at the last value.
    const size_t whole = (bytes + 127) / 64 * 64;
    void* memory = std::aligned_alloc(64, whole);
    if (!memory) throw std::bad_alloc();
    std::memset(memory, 0, whole);
    return memory;
}

void release(void* memory) { std::free(memory); }

int64_t Book::bytes() const {
    return rows.bytes() + exact_lanes.bytes() + lanes.bytes() + norms.bytes() + centre.bytes() + shifted.bytes() +
           half_norm.bytes() + int16.codes.bytes() + int16.offset.bytes() + int8.codes.bytes() + int8.offset.bytes();
}

int64_t prepare(const void* values, int32_t type, int64_t size, int64_t dim, int32_t metric, const Forms& forms,
                Book* book) {
    book->size = size;
    book->dim = dim;
    book->groups = (size + kGroup - 1) / kGroup;
    book->metric = metric;
    book->is_double = type == MT_FLOAT64;
    const int64_t padded = book->padded();
    std::vector<double> code(dim), b(dim), mean(dim);

    for (int64_t k = 0; k < size; k++) {
        read_doubles(row_of(values, type, dim, k), type, dim, code.data());
        if (!all_finite(code.data(), dim)) return k;
        for (int64_t d = 0; d < dim; d++) mean[d] += code[d] / static_cast<double>(size);
    }
    book->centre.reset(dim);
    if (metric == MT_L2) {
        for (int64_t d = 0; d < dim; d++) {
            const float centre = static_cast<float>(mean[d]);
            book->centre[d] = std::isfinite(centre) ? centre : 0;
        }
    }

    if (book->is_double) {
        book->exact_lanes.reset(padded * dim);
    } else {
        book->lanes.reset(padded * dim);
    }
    if (forms.rows) book->rows.reset(size * dim);
    if (metric == MT_COSINE) book->norms.reset(padded);
    book->half_norm.reset(padded);
    for (int64_t k = 0; k < size; k++) {
        read_doubles(row_of(values, type, dim, k), type, dim, code.data());
        for (int64_t d = 0; d < dim; d++) {
            const int64_t at = ((k / kGroup) * dim + d) * kGroup + k % kGroup;
            if (book->is_double) book->exact_lanes[at] = code[d];
            if (!book->is_double) book->lanes[at] = static_cast<float>(code[d]);
            if (forms.rows) book->rows[k * dim + d] = static_cast<float>(code[d]);
        }
        const double norm = norm_of(code.data(), dim);
        if (metric == MT_COSINE) {
            book->norms[k] = norm;
            book->bounded = book->bounded && std::isfinite(norm);
        }
        shift(*book, code.data(), norm, b.data());
        const double shifted_norm = norm_of(b.data(), dim);
        book->largest_norm = std::fmax(book->largest_norm, shifted_norm * (1 + (dim + 8.0) * 0x1p-52));
        for (int64_t d = 0; d < dim; d++) book->largest_value = std::fmax(book->largest_value, std::fabs(b[d]));
        book->half_norm[k] = metric == MT_L2 ? static_cast<float>(0.5 * shifted_norm * shifted_norm) : 0;
    }
    for (int64_t k = size; k < padded; k++) book->half_norm[k] = 3e38f;
    // A codebook of equal codes has norm 0; every bound holds for it.
    const bool inside = book->largest_norm > kLeastNorm && book->largest_norm < kMostNorm;
    book->bounded = book->bounded && (inside || book->largest_norm == 0);
    if (!book->bounded) return -1;

    const bool int16 = forms.int16 && dim <= kMostDim16, int8 = forms.int8 && dim <= kMostDim8;
    if (int16) start_integers(2, book->largest_norm / kNorm16, *book, &book->int16);
    if (int8) start_integers(4, book->largest_value / kMost8, *book, &book->int8);
    if (forms.shifted) book->shifted.reset(padded * dim);
    for (int64_t k = 0; k < size; k++) {
        read_doubles(row_of(values, type, dim, k), type, dim, code.data());
        shift(*book, code.data(), metric == MT_COSINE ? book->norms[k] : 0, b.data());
        if (int16) round_code(b.data(), dim, k, &book->int16);
        if (int8) round_code(b.data(), dim, k, &book->int8);
        double error = 0;
        for (int64_t d = 0; d < dim; d++) {
            const float rounded = static_cast<float>(b[d]);
            if (forms.shifted) book->shifted[k * dim + d] = rounded;
            error += (b[d] - rounded) * (b[d] - rounded);
        }
        book->shift_error = std::fmax(book->shift_error, std::sqrt(error) * (1 + 0x1p-40) +
                                                             norm_of(b.data(), dim) * (dim + 8.0) * 0x1p-52);
    }
    return -1;
}

}  // namespace multitok
