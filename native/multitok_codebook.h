/* C interface of the native codebook search, loaded by ctypes from multitok/codebook/native.py.

   A plain C interface, so that one library serves every Python. Nothing here is global: codebooks and thread pools
   are handles that the caller makes and frees. Every function may be called from several threads at once, on the
   same handles too; only freeing a handle must be the last use of it.

   N vectors, V codes, D dimensions. Pointers are to memory in C order; rows of `vectors` may be further apart than
   D values, their D values are contiguous. */
#ifndef MULTITOK_CODEBOOK_H
#define MULTITOK_CODEBOOK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MT_EXPORT __attribute__((visibility("default")))

/* Raised with every change of a signature or of a constant below. */
#define MT_INTERFACE_VERSION 1

typedef struct mt_codebook mt_codebook;
typedef struct mt_pool mt_pool;

/* Types of the values; all are searched as the real numbers they stand for. */
enum { MT_FLOAT32 = 0, MT_FLOAT64 = 1, MT_FLOAT16 = 2, MT_BFLOAT16 = 3 };

/* What "near" means. In float64, terms added in the order of the axis D, without fused multiply-add:
     MT_L2      distance = sum (x - c)^2
     MT_DOT     distance = -(sum x c)
     MT_COSINE  distance = -(sum x c) / sqrt(sum c^2), 0 for a code of norm 0; |x| does not change the order
   The smallest distance wins, the lowest index on ties. */
enum { MT_L2 = 0, MT_COSINE = 1, MT_DOT = 2 };

/* Ways to search. Each gives the same codes; they differ in speed. MT_AUTO takes the fastest by a measured rule. */
enum {
    MT_AUTO = 0,
    MT_PORTABLE = 1,     /* float32, compiler vectors: any processor */
    MT_AVX2 = 2,         /* int16 products by vpmaddwd */
    MT_AVX512 = 3,       /* int16 products by vpmaddwd, 512 bits */
    MT_AVX512_VNNI = 4,  /* int16 and int8 products with fused sums */
    MT_AMX = 5,          /* bfloat16 tiles */
    MT_TREE_AVX2 = 6,    /* boxes of 16 codes in kd order, small D, MT_L2 only */
    MT_TREE_AVX512 = 7,
    MT_PATHS = 8
};

enum {
    MT_OK = 0,
    MT_NOT_FINITE = 1,   /* a NaN or an infinity; *bad_row is the first row that holds one */
    MT_OUT_OF_MEMORY = 2,
    MT_UNSUPPORTED = 3   /* this path does not run here, or not for this codebook */
};

/* How the certified search went; added to, so that calls can be summed. */
typedef struct {
    int64_t rows;            /* vectors searched */
    int64_t groups;          /* groups of 16 codes compared again in float32 or float64 */
    int64_t decided_double;  /* vectors whose code needed a comparison in float64 */
    int64_t scanned;         /* vectors compared with every code, because no bound held for them */
} mt_statistics;

MT_EXPORT int32_t mt_interface_version(void);
/* Bit p is set where path p runs on this processor in this build. */
MT_EXPORT uint32_t mt_supported_paths(void);
/* A short name such as "avx512-vnni"; NULL where there is no such path. */
MT_EXPORT const char* mt_path_name(int32_t path);

/* `threads` workers in all, the caller included (so threads - 1 are started); NULL where none can be started. */
MT_EXPORT mt_pool* mt_pool_new(int32_t threads);
MT_EXPORT int32_t mt_pool_threads(const mt_pool* pool);
MT_EXPORT void mt_pool_free(mt_pool* pool);

/* Prepares `values` [V, D], which are copied. `path` MT_AUTO prepares every path that may be taken later. */
MT_EXPORT int32_t mt_codebook_new(const void* values, int32_t type, int64_t size, int64_t dim, int32_t metric,
                                  int32_t path, mt_codebook** codebook, int64_t* bad_row);
MT_EXPORT void mt_codebook_free(mt_codebook* codebook);
/* The path that a search of `count` vectors for their `nearest` codes takes. */
MT_EXPORT int32_t mt_codebook_path(const mt_codebook* codebook, int64_t count, int64_t nearest);
/* Bytes held by the codebook. */
MT_EXPORT int64_t mt_codebook_bytes(const mt_codebook* codebook);

/* Codes [N, nearest], nearest first, of `vectors` [N, D] at `row_stride` values a row; 1 <= nearest <= min(V, 16).
   `distances` [N, nearest] float64 as defined above, or NULL. `statistics` or NULL. `pool` or NULL for one thread. */
MT_EXPORT int32_t mt_search(const mt_codebook* codebook, mt_pool* pool, const void* vectors, int32_t type,
                            int64_t count, int64_t row_stride, int64_t nearest, int32_t* codes, double* distances,
                            int64_t* bad_row, mt_statistics* statistics);

/* counts [V] and sums [V, D] of the vectors of each code, added to what they hold. A value enters as the integer
   nearest to value * 2^exponent (ties to even), so every order and every split of the vectors gives the same sums.
   The caller chooses `exponent` such that N * max|value| * 2^exponent < 2^63. Codes outside [0, V): MT_UNSUPPORTED. */
MT_EXPORT int32_t mt_segment_sums(mt_pool* pool, const void* vectors, int32_t type, int64_t count, int64_t dim,
                                  int64_t row_stride, const int32_t* codes, int64_t size, int32_t exponent,
                                  int64_t* counts, int64_t* sums, int64_t* bad_row);

#ifdef __cplusplus
}
#endif
#endif
