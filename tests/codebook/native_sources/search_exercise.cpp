// Many searches through the C interface, each compared with the definition in multitok_codebook.h written out plainly.
// Prints the search that went wrong and ends with 1. Compiled and run with sanitizers by
// tests/codebook/test_native_sanitizers.py; every array lies in a block of exactly its size, so that a read or a write
// beyond it is seen.
//
//     search_exercise <searches> <seed>
//     search_exercise overrun | race         a call that the sanitizers must not let pass
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "multitok_codebook.h"

namespace {

using Random = std::mt19937_64;

int64_t between(Random& random, int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
}

template <class T>
T one_of(Random& random, std::initializer_list<T> choices) {
    return choices.begin()[between(random, 0, static_cast<int64_t>(choices.size()) - 1)];
}

// A matrix of one of the four types, and the real numbers its values stand for.
struct Matrix {
    int32_t type;
    int64_t rows, dim, stride;
    std::unique_ptr<char[]> memory;  // [rows, stride], the last row without what lies behind its D values
    std::vector<double> real;        // [rows, dim]
    const double* row(int64_t r) const { return real.data() + r * dim; }
};

int64_t bytes_of(int32_t type) { return type == MT_FLOAT64 ? 8 : type == MT_FLOAT32 ? 4 : 2; }

// Rounds towards zero to a value of `type`, writes it to `at` and returns it.
double write(int32_t type, double value, char* at) {
    if (type == MT_FLOAT64) {
        std::memcpy(at, &value, 8);
        return value;
    }
    if (type == MT_FLOAT16) {  // 10 bits behind the leading one, in units no smaller than 2^-24; overflow to 65504
        int exponent;
        std::frexp(value, &exponent);
        const double unit = std::ldexp(1.0, std::max(exponent - 11, -24));
        const double rounded = std::clamp(std::trunc(value / unit) * unit, -65504.0, 65504.0);
        const double size = std::fabs(rounded);
        uint16_t bits = std::signbit(value) ? 0x8000 : 0;
        if (size >= 0x1p-14) {
            const double fraction = std::frexp(size, &exponent) * 2048;  // [1024, 2048)
            bits |= static_cast<uint16_t>((exponent + 14) << 10 | (static_cast<int>(fraction) & 1023));
        } else {
            bits |= static_cast<uint16_t>(size * 0x1p24);
        }
        std::memcpy(at, &bits, 2);
        return rounded;
    }
    float rounded = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, &rounded, 4);
    if (type == MT_BFLOAT16) {
        bits &= 0xffff0000;
        std::memcpy(&rounded, &bits, 4);
        std::memcpy(at, reinterpret_cast<const char*>(&bits) + 2, 2);  // little-endian
    } else {
        std::memcpy(at, &bits, 4);
    }
    return rounded;
}

Matrix matrix(int32_t type, int64_t rows, int64_t dim, int64_t gap, const std::vector<double>& values) {
    Matrix m{type, rows, dim, dim + gap, nullptr, std::vector<double>(static_cast<size_t>(rows * dim))};
    const int64_t size = bytes_of(type);
    m.memory.reset(new char[static_cast<size_t>(rows ? ((rows - 1) * m.stride + dim) * size : 0)]);
    std::memset(m.memory.get(), 0xff, static_cast<size_t>(rows ? ((rows - 1) * m.stride + dim) * size : 0));  // NaN
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t d = 0; d < dim; d++) {
            const size_t i = static_cast<size_t>(r * dim + d);
            m.real[i] = write(type, values[i], m.memory.get() + (r * m.stride + d) * size);
        }
    }
    return m;
}

// [rows, dim] values of one of the kinds that are hard for a search that approximates first.
std::vector<double> values(Random& random, int kind, int64_t rows, int64_t dim) {
    std::vector<double> v(static_cast<size_t>(rows * dim));
    std::normal_distribution<double> normal;
    for (double& x : v) x = normal(random);
    switch (kind) {
        case 0: break;
        case 1:  // ties
            for (double& x : v) x = std::round(x);
            break;
        case 2:  // the same rows over and over
            for (size_t i = 0; i < v.size(); i++) v[i] = v[i % static_cast<size_t>(3 * dim)];
            break;
        case 3:  // one tight cluster
            for (size_t i = 0; i < v.size(); i++) v[i] = 1 + 1e-4 * v[i];
            break;
        case 4:  // far from the origin
            for (double& x : v) x += 100;
            break;
        case 5:  // squares overflow float32, and the larger float16 values their type
            for (double& x : v) x *= 1e25;
            break;
        case 6:  // squares underflow float32
            for (double& x : v) x *= 1e-30;
            break;
        case 7:  // all magnitudes at once
            for (double& x : v) x *= std::pow(10.0, static_cast<double>(between(random, -30, 15)));
            break;
        default:  // zeros, signed ones too
            for (double& x : v) x = between(random, 0, 3) ? std::copysign(0.0, x) : x;
    }
    return v;
}

// Written out as defined; compiled without fused multiply-add.
double distance(int32_t metric, const double* x, const double* c, int64_t dim) {
    double sum = 0, square = 0;
    for (int64_t d = 0; d < dim; d++) {
        sum += metric == MT_L2 ? (x[d] - c[d]) * (x[d] - c[d]) : x[d] * c[d];
        square += c[d] * c[d];
    }
    if (metric == MT_L2) return sum;
    if (metric == MT_DOT) return -sum;
    return square > 0 ? -sum / std::sqrt(square) : 0;
}

struct Case {
    int32_t metric, path, threads;
    int64_t nearest, count, size, dim;
    int kind;
    std::string text() const {
        char line[200];
        std::snprintf(line, sizeof line, "metric %d, path %s, threads %d, k %lld, N %lld, V %lld, D %lld, kind %d",
                      metric, mt_path_name(path), threads, static_cast<long long>(nearest),
                      static_cast<long long>(count), static_cast<long long>(size), static_cast<long long>(dim), kind);
        return line;
    }
};

[[noreturn]] void fail(const Case& c, const char* what) {
    std::printf("%s: %s\n", what, c.text().c_str());
    std::exit(1);
}

void compare(const Case& c, const Matrix& vectors, const Matrix& codes, const int32_t* found, const double* distances) {
    std::vector<std::pair<double, int32_t>> all(static_cast<size_t>(c.size));
    for (int64_t n = 0; n < c.count; n++) {
        for (int32_t v = 0; v < c.size; v++) {
            all[static_cast<size_t>(v)] = {distance(c.metric, vectors.row(n), codes.row(v), c.dim), v};
        }
        std::partial_sort(all.begin(), all.begin() + c.nearest, all.end());
        for (int64_t k = 0; k < c.nearest; k++) {
            const auto& expected = all[static_cast<size_t>(k)];
            if (found[n * c.nearest + k] != expected.second) fail(c, "wrong code");
            if (distances && distances[n * c.nearest + k] != expected.first) fail(c, "wrong distance");
        }
    }
}

// One codebook, searched from one or more threads at once; false where the path is not for this codebook.
bool search(Random& random, const Case& c, mt_pool* pool) {
    const auto type = [&random] { return one_of(random, {MT_FLOAT32, MT_FLOAT64, MT_FLOAT16, MT_BFLOAT16}); };
    const Matrix codes = matrix(type(), c.size, c.dim, 0, values(random, c.kind, c.size, c.dim));
    std::vector<double> near = values(random, c.kind, c.count, c.dim);
    if (between(random, 0, 1)) {  // vectors that are codes, or lie between two
        for (int64_t n = 0; n < c.count; n++) {
            const double* a = codes.row(between(random, 0, c.size - 1));
            const double* b = codes.row(between(random, 0, c.size - 1));
            const double half = between(random, 0, 1) * 0.5;
            for (int64_t d = 0; d < c.dim; d++) near[static_cast<size_t>(n * c.dim + d)] = a[d] + half * (b[d] - a[d]);
        }
    }
    Matrix vectors = matrix(type(), c.count, c.dim, one_of<int64_t>(random, {0, 0, 1, 5}), near);

    mt_codebook* codebook = nullptr;
    int64_t bad_row = -1;
    const int32_t made =
        mt_codebook_new(codes.memory.get(), codes.type, c.size, c.dim, c.metric, c.path, &codebook, &bad_row);
    if (made == MT_UNSUPPORTED) return false;
    if (made != MT_OK) fail(c, "no codebook");

    const int64_t callers = one_of<int64_t>(random, {1, 1, 1, 3});
    const bool wanted = between(random, 0, 1);
    std::vector<std::thread> threads;
    for (int64_t caller = 0; caller < callers; caller++) {
        threads.emplace_back([&] {
            const size_t results = static_cast<size_t>(c.count * c.nearest);
            std::unique_ptr<int32_t[]> found(new int32_t[results]);
            std::unique_ptr<double[]> distances(wanted ? new double[results] : nullptr);
            mt_statistics statistics{};
            int64_t bad = -1;
            if (mt_search(codebook, pool, vectors.memory.get(), vectors.type, c.count, vectors.stride, c.nearest,
                          found.get(), distances.get(), &bad, &statistics) != MT_OK) {
                fail(c, "no result");
            }
            if (statistics.rows != c.count) fail(c, "wrong number of rows in the statistics");
            compare(c, vectors, codes, found.get(), distances.get());
        });
    }
    for (std::thread& thread : threads) thread.join();

    if (c.count > 0) {  // a NaN or an infinity is refused by its row
        const int64_t row = between(random, 0, c.count - 1), d = between(random, 0, c.dim - 1);
        const double value = one_of(random, {HUGE_VAL, -HUGE_VAL, std::nan("")});
        char* at = vectors.memory.get() + (row * vectors.stride + d) * bytes_of(vectors.type);
        if (vectors.type == MT_FLOAT16) {
            std::memcpy(at, std::isnan(value) ? "\x01\x7c" : "\x00\x7c", 2);
        } else {
            write(vectors.type, value, at);
        }
        std::unique_ptr<int32_t[]> found(new int32_t[static_cast<size_t>(c.count * c.nearest)]);
        int64_t bad = -1;
        const int32_t status = mt_search(codebook, pool, vectors.memory.get(), vectors.type, c.count, vectors.stride,
                                         c.nearest, found.get(), nullptr, &bad, nullptr);
        if (status != MT_NOT_FINITE || bad != row) fail(c, "NaN or infinity not refused by its row");
    }
    mt_codebook_free(codebook);
    return true;
}

// What no caller may do, to see that the sanitizers watch the library.
void misuse(const std::string& what) {
    const std::vector<double> some(64 * 8, 1.0);
    const Matrix codes = matrix(MT_FLOAT32, 64, 8, 0, some), vectors = matrix(MT_FLOAT32, 64, 8, 0, some);
    mt_codebook* codebook = nullptr;
    int64_t bad_row = -1;
    const int64_t size = what == "overrun" ? 65 : 64;
    mt_codebook_new(codes.memory.get(), MT_FLOAT32, size, 8, MT_L2, MT_PORTABLE, &codebook, &bad_row);
    std::unique_ptr<int32_t[]> found(new int32_t[64]);
    const auto search_all = [&] {
        int64_t bad = -1;
        mt_search(codebook, nullptr, vectors.memory.get(), MT_FLOAT32, 64, 8, 1, found.get(), nullptr, &bad, nullptr);
    };
    std::thread other(search_all);
    search_all();  // into the same array
    other.join();
    mt_codebook_free(codebook);
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 2) {
        misuse(arguments[1]);
        return 0;
    }
    if (count != 3) return 2;
    const int64_t searches = std::atoll(arguments[1]);
    Random random(static_cast<uint64_t>(std::atoll(arguments[2])));
    const uint32_t supported = mt_supported_paths();
    int64_t done[MT_PATHS] = {};
    for (int64_t i = 0; i < searches; i++) {
        Case c;
        c.metric = one_of(random, {MT_L2, MT_L2, MT_COSINE, MT_DOT});
        do {
            c.path = static_cast<int32_t>(between(random, 0, MT_PATHS - 1));
        } while (c.path != MT_AUTO && !(supported >> c.path & 1));
        c.threads = one_of(random, {1, 2, 3});
        c.size = one_of<int64_t>(random, {1, 2, between(random, 3, 40), between(random, 40, 700)});
        c.dim = one_of<int64_t>(random, {1, 2, 3, 4, 8, between(random, 5, 40), between(random, 40, 300)});
        c.count = one_of<int64_t>(random, {0, 1, 8, between(random, 2, 75), between(random, 75, 400)});
        c.nearest = between(random, 0, 1) ? 1 : between(random, 1, std::min<int64_t>(c.size, 16));
        c.kind = static_cast<int>(between(random, 0, 8));
        mt_pool* pool = c.threads == 1 ? nullptr : mt_pool_new(c.threads);
        if (c.threads > 1 && (!pool || mt_pool_threads(pool) != c.threads)) fail(c, "no pool");
        done[c.path] += search(random, c, pool);
        if (pool) mt_pool_free(pool);
    }
    for (int32_t path = 0; path < MT_PATHS; path++) {
        if (done[path]) std::printf("%s %lld\n", mt_path_name(path), static_cast<long long>(done[path]));
    }
}
