// Lays the tree search (native/tree.h) open to tests/codebook/test_tree.py.
#include <cstdint>
#include <cstring>
#include <memory>

#include <xmmintrin.h>

#include "tree.h"

using namespace multitok;

namespace {

const Path* path_of(int32_t path) { return path == MT_TREE_AVX512 ? tree_avx512_path() : tree_avx2_path(); }

}  // namespace

extern "C" {

int32_t tree_runs(int32_t path) { return path_of(path)->supported(); }

int32_t tree_takes(int64_t size, int64_t dim) { return tree_fits(size, dim); }

Book* tree_open(const float* values, int64_t size, int64_t dim) {
    Forms forms;
    forms.rows = true;
    auto book = std::make_unique<Book>();
    if (prepare(values, MT_FLOAT32, size, dim, MT_L2, forms, book.get()) >= 0) return nullptr;
    book->tree = make_tree(*book);
    return book.release();
}

void tree_close(Book* book) { delete book; }

int64_t tree_top(const Book* book) { return book->tree->top; }

int64_t tree_leaves(const Book* book) { return book->tree->leaves; }

const int32_t* tree_codes(const Book* book) { return book->tree->codes.data(); }

// In blocks of rows_per_block rows, as the library does it; `flush`: with denormals taken and given as zeros.
void tree_search(const Book* book, int32_t path, const float* rows, int64_t count, int64_t stride, int32_t flush,
                 int32_t* codes, double* distances, mt_statistics* statistics) {
    const Path& search = *path_of(path);
    const std::unique_ptr<Scratch> scratch(search.make_scratch(*book, 1));
    const int64_t block = search.rows_per_block(*book);
    const uint32_t before = _mm_getcsr();
    if (flush) _mm_setcsr(before | 0x8040);
    for (int64_t first = 0; first < count; first += block) {
        const int64_t some = count - first < block ? count - first : block;
        const Rows part{rows + first * stride, stride, nullptr, 0, book->centre.data(), some};
        search.search(*book, part, Results{1, codes + first, distances ? distances + first : nullptr, statistics},
                      *scratch);
    }
    _mm_setcsr(before);
}
}
