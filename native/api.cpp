// The C interface: checks, the choice of a path, and the cutting of a search into blocks.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <vector>

#include "book.h"
#include "float_mode.h"
#include "handles.h"
#include "multitok_codebook.h"
#include "search.h"
#include "thread_pool.h"
#include "values.h"

#ifdef MULTITOK_HAVE_AMX
#include "amx.h"
#endif
#if defined(MULTITOK_HAVE_TREE_AVX2) || defined(MULTITOK_HAVE_TREE_AVX512)
#include "tree.h"
#endif

struct mt_codebook {
    multitok::Book book;
    int32_t main_path = MT_PORTABLE;  // for every search the tree does not take
    int32_t tree_path = MT_AUTO;      // MT_AUTO: none
    // Making the tree costs about as much as it saves on V vectors, so it waits until they have come. The thread that
    // claims it makes it while others go on without; so nobody waits, and a process forked meanwhile is not stuck.
    mutable std::atomic<int64_t> searched{0};
    mutable std::atomic<bool> tree_claimed{false}, tree_ready{false};
};

namespace multitok {
namespace {

// Multiply-adds below which a second thread costs more than it saves: about 30 microseconds on one core.
constexpr double kThreadWork = 1 << 21;

const Path* path_of(int32_t path) {
    switch (path) {
        case MT_PORTABLE: return portable_path();
#ifdef MULTITOK_HAVE_AVX2
        case MT_AVX2: return avx2_path();
#endif
#ifdef MULTITOK_HAVE_AVX512
        case MT_AVX512: return avx512_path();
#endif
#ifdef MULTITOK_HAVE_AVX512_VNNI
        case MT_AVX512_VNNI: return avx512_vnni_path();
#endif
#ifdef MULTITOK_HAVE_AMX
        case MT_AMX: return amx_path();
#endif
#ifdef MULTITOK_HAVE_TREE_AVX2
        case MT_TREE_AVX2: return tree_avx2_path();
#endif
#ifdef MULTITOK_HAVE_TREE_AVX512
        case MT_TREE_AVX512: return tree_avx512_path();
#endif
        default: return nullptr;
    }
}

bool runs(int32_t path) {
    const Path* found = path_of(path);
    return found && found->supported();
}

int32_t first_that_runs(std::initializer_list<int32_t> paths) {
    for (const int32_t path : paths) {
        if (runs(path)) return path;
    }
    return MT_AUTO;
}

// int8 products propose twice as fast as int16, and leave more codes to decide: measured, it pays for large codebooks.
bool bytes_pay(int64_t size, int64_t dim) { return size >= 1024 && dim >= 32; }

bool is_tree(int32_t path) { return path == MT_TREE_AVX2 || path == MT_TREE_AVX512; }

// One worker of a search: its memory and what it counted.
class Worker {
  public:
    Worker(const Book& book, const Path& path, int32_t type, int64_t block)
        : book_(book), path_(path), type_(type), scratch_(path.make_scratch(book, block)) {
        if (type != MT_FLOAT32) floats_.reset(block * book.dim);
        if (type == MT_FLOAT64) zeros_.reset(book.dim);
    }

    // Searches `count` rows at `values`; returns the first that is not finite, or -1.
    int64_t search(const void* values, int64_t count, int64_t stride, int64_t nearest, int32_t* codes,
                   double* distances) {
        const FloatMode mode;
        Rows rows{static_cast<const float*>(values), stride, nullptr, 0, book_.centre.data(), count};
        for (int64_t r = 0; r < count; r++) {
            const void* row = row_of(values, type_, stride, r);
            if (type_ == MT_FLOAT32 ? !all_finite(static_cast<const float*>(row), book_.dim) : !read(row, r)) return r;
        }
        if (type_ != MT_FLOAT32) {
            rows.values = floats_.data();
            rows.stride = book_.dim;
        }
        if (type_ == MT_FLOAT64) {
            rows.exact = static_cast<const double*>(values);
            rows.exact_stride = stride;
            rows.centre = zeros_.data();
        }
        path_.search(book_, rows, Results{nearest, codes, distances, &statistics}, *scratch_);
        return -1;
    }

    mt_statistics statistics{};

  private:
    bool read(const void* row, int64_t r) {
        float* to = floats_.data() + r * book_.dim;
        if (type_ != MT_FLOAT64) {
            read_floats(row, type_, book_.dim, to);
            return all_finite(to, book_.dim);
        }
        const double* from = static_cast<const double*>(row);
        for (int64_t d = 0; d < book_.dim; d++) {
            to[d] = static_cast<float>(from[d] - static_cast<double>(book_.centre[d]));
        }
        return all_finite(from, book_.dim);
    }

    const Book& book_;
    const Path& path_;
    int32_t type_;
    std::unique_ptr<Scratch> scratch_;
    Aligned<float> zeros_, floats_;
};

struct Search {
    const mt_codebook& codebook;
    int32_t path;
    const void* vectors;
    int32_t type;
    int64_t count, stride, nearest;
    int32_t* codes;
    double* distances;
};

// Returns the first row that is not finite, or -1.
int64_t run(const Search& s, ThreadPool* pool, mt_statistics* statistics) {
    const Book& book = s.codebook.book;
    const Path& path = *path_of(s.path);
    // A tree opens about 64 leaves at most.
    const double codes = static_cast<double>(is_tree(s.path) ? std::min<int64_t>(book.size, 1024) : book.size);
    const double work = static_cast<double>(s.count) * codes * static_cast<double>(book.dim);
    const int64_t threads = pool && work > kThreadWork ? pool->threads() : 1;
    int64_t block = path.rows_per_block(book);
    // Few vectors: smaller blocks, so that every thread has one.
    block = std::min(block, (s.count + threads - 1) / threads);
    if (block > 16) block = (block + 15) / 16 * 16;
    const int64_t blocks = (s.count + block - 1) / block;

    std::atomic<int64_t> bad_row{-1};
    std::mutex mutex;
    auto block_search = [&](Worker& worker, int64_t i) {
        const int64_t first = i * block, rows = std::min(block, s.count - first);
        const int64_t bad =
            worker.search(row_of(s.vectors, s.type, s.stride, first), rows, s.stride, s.nearest,
                          s.codes + first * s.nearest, s.distances ? s.distances + first * s.nearest : nullptr);
        if (bad < 0) return;
        int64_t known = bad_row.load();
        while ((known < 0 || first + bad < known) && !bad_row.compare_exchange_weak(known, first + bad)) {
        }
    };
    auto add = [&](const mt_statistics& part) {
        if (!statistics) return;
        const std::lock_guard<std::mutex> lock(mutex);
        statistics->groups += part.groups;
        statistics->decided_double += part.decided_double;
        statistics->scanned += part.scanned;
    };
    if (threads == 1 || blocks == 1) {
        Worker worker(book, path, s.type, block);
        for (int64_t i = 0; i < blocks; i++) block_search(worker, i);
        add(worker.statistics);
    } else {
        for_blocks(pool, blocks, [&](int) {
            auto worker = std::shared_ptr<Worker>(new Worker(book, path, s.type, block),
                                                  [&](Worker* done) {
                                                      add(done->statistics);
                                                      delete done;
                                                  });
            return [worker, &block_search](int64_t i) { block_search(*worker, i); };
        });
    }
    if (statistics) statistics->rows += s.count;
    return bad_row.load();
}

// Makes the tree, unless another thread is at it.
void plant(const mt_codebook& codebook) {
#if defined(MULTITOK_HAVE_TREE_AVX2) || defined(MULTITOK_HAVE_TREE_AVX512)
    if (codebook.tree_claimed.exchange(true)) return;
    codebook.book.tree = make_tree(codebook.book);
    codebook.tree_ready.store(true, std::memory_order_release);
#else
    (void)codebook;
#endif
}

bool tree_is_ready(const mt_codebook& codebook) { return codebook.tree_ready.load(std::memory_order_acquire); }

// What `path` reads, and the path that searches where the tree does not.
int32_t make(const void* values, int32_t type, int64_t size, int64_t dim, int32_t metric, int32_t path,
             mt_codebook* made, int64_t* bad_row) {
    const FloatMode mode;
    const int32_t flat = first_that_runs({MT_AMX, MT_AVX512_VNNI, MT_AVX512, MT_AVX2, MT_PORTABLE});
    made->main_path = path == MT_AUTO || is_tree(path) ? flat : path;
    int32_t tree = MT_AUTO;
#if defined(MULTITOK_HAVE_TREE_AVX2) || defined(MULTITOK_HAVE_TREE_AVX512)
    tree = is_tree(path) ? path : first_that_runs({MT_TREE_AVX512, MT_TREE_AVX2});
    const bool fits = type != MT_FLOAT64 && metric == MT_L2 && tree_fits(size, dim);
    if (is_tree(path) && !fits) return MT_UNSUPPORTED;
    if (!fits || (path != MT_AUTO && !is_tree(path)) || (path == MT_AUTO && !tree_pays(dim, size))) tree = MT_AUTO;
#endif
    const int32_t main = made->main_path;
    Forms forms;
    forms.int16 = main == MT_AVX512_VNNI || main == MT_AVX512 || main == MT_AVX2;
    forms.int8 = main == MT_AVX512_VNNI && bytes_pay(size, dim);
    forms.shifted = main == MT_PORTABLE || main == MT_AMX;
    forms.rows = tree != MT_AUTO;
    *bad_row = prepare(values, type, size, dim, metric, forms, &made->book);
    if (*bad_row >= 0) return MT_NOT_FINITE;
#ifdef MULTITOK_HAVE_AMX
    if (main == MT_AMX && made->book.bounded) {
        made->book.tile = make_tile_book(made->book);
        made->book.shifted.reset(0);
    }
#endif
    made->tree_path = tree;
    if (is_tree(path)) plant(*made);
    // Without a bound every vector is compared with every code, which needs no other form.
    if (!made->book.bounded) made->main_path = MT_PORTABLE;
    return MT_OK;
}

}  // namespace
}  // namespace multitok

using namespace multitok;

int32_t mt_interface_version(void) { return MT_INTERFACE_VERSION; }

uint32_t mt_supported_paths(void) {
    uint32_t paths = 0;
    for (int32_t path = 1; path < MT_PATHS; path++) paths |= static_cast<uint32_t>(runs(path)) << path;
    return paths;
}

const char* mt_path_name(int32_t path) {
    static const char* const names[MT_PATHS] = {"auto",        "portable", "avx2",      "avx512",
                                                "avx512-vnni", "amx",      "tree-avx2", "tree-avx512"};
    return path >= 0 && path < MT_PATHS ? names[path] : nullptr;
}

mt_pool* mt_pool_new(int32_t threads) {
    try {
        return new mt_pool(threads);
    } catch (const std::bad_alloc&) {
        return nullptr;
    } catch (const std::system_error&) {
        return nullptr;
    }
}

int32_t mt_pool_threads(const mt_pool* pool) { return pool->pool.threads(); }

void mt_pool_free(mt_pool* pool) { delete pool; }

int32_t mt_codebook_new(const void* values, int32_t type, int64_t size, int64_t dim, int32_t metric, int32_t path,
                        mt_codebook** codebook, int64_t* bad_row) {
    const bool known = value_bytes(type) && metric >= MT_L2 && metric <= MT_DOT && size > 0 && dim > 0;
    if (!known || size > INT32_MAX || (path != MT_AUTO && !runs(path))) return MT_UNSUPPORTED;
    try {
        auto made = std::make_unique<mt_codebook>();
        const int32_t status = make(values, type, size, dim, metric, path, made.get(), bad_row);
        if (status == MT_OK) *codebook = made.release();
        return status;
    } catch (const std::bad_alloc&) {
        return MT_OUT_OF_MEMORY;
    }
}

void mt_codebook_free(mt_codebook* codebook) { delete codebook; }

int32_t mt_codebook_path(const mt_codebook* codebook, int64_t count, int64_t nearest) {
    if (codebook->tree_path == MT_AUTO || nearest != 1) return codebook->main_path;
    const bool due = codebook->searched.load(std::memory_order_relaxed) + count >= codebook->book.size;
    return due || tree_is_ready(*codebook) ? codebook->tree_path : codebook->main_path;
}

int64_t mt_codebook_bytes(const mt_codebook* codebook) {
    int64_t bytes = codebook->book.bytes();
#ifdef MULTITOK_HAVE_AMX
    if (codebook->book.tile) bytes += codebook->book.tile->bytes();
#endif
#if defined(MULTITOK_HAVE_TREE_AVX2) || defined(MULTITOK_HAVE_TREE_AVX512)
    if (tree_is_ready(*codebook)) bytes += codebook->book.tree->bytes();
#endif
    return bytes;
}

int32_t mt_search(const mt_codebook* codebook, mt_pool* pool, const void* vectors, int32_t type, int64_t count,
                  int64_t row_stride, int64_t nearest, int32_t* codes, double* distances, int64_t* bad_row,
                  mt_statistics* statistics) {
    const int64_t size = codebook->book.size;
    if (!value_bytes(type) || count < 0 || nearest < 1 || nearest > std::min<int64_t>(size, 16)) return MT_UNSUPPORTED;
    if (count == 0) return MT_OK;
    int32_t path = type == MT_FLOAT64 ? codebook->main_path : mt_codebook_path(codebook, count, nearest);
    try {
        if (is_tree(path) && !tree_is_ready(*codebook)) {
            plant(*codebook);
            if (!tree_is_ready(*codebook)) path = codebook->main_path;
        }
        codebook->searched.fetch_add(count, std::memory_order_relaxed);
        *bad_row = run(Search{*codebook, path, vectors, type, count, row_stride, nearest, codes, distances},
                       pool ? &pool->pool : nullptr, statistics);
        return *bad_row >= 0 ? MT_NOT_FINITE : MT_OK;
    } catch (const std::bad_alloc&) {
        return MT_OUT_OF_MEMORY;
    }
}
