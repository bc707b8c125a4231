/* C interface of the integer convolution stacks, loaded by ctypes from multitok/nets/native.py; multitok/nets/program.py
   defines what a stack computes. Handles and threads are as in multitok_codebook.h. */
#ifndef MULTITOK_STACKS_H
#define MULTITOK_STACKS_H

#include "multitok_codebook.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mt_stack mt_stack;

/* Ways to run a stack, to the same integers. MT_STACK_AUTO takes the fastest that runs here. */
enum {
    MT_STACK_AUTO = 0,
    MT_STACK_PORTABLE = 1,     /* int16 products: any processor */
    MT_STACK_AVX2 = 2,         /* int16 products by vpmaddwd */
    MT_STACK_AVX_VNNI = 3,     /* int8 products by vpdpbusd, 256 bits */
    MT_STACK_AVX512 = 4,       /* int16 products by vpmaddwd, 512 bits */
    MT_STACK_AVX512_VNNI = 5,  /* int8 products by vpdpbusd, 512 bits */
    MT_STACK_PATHS = 6
};

enum { MT_OP_CONV = 0, MT_OP_QUANTIZE = 1, MT_OP_FOLD2 = 2, MT_OP_UNFOLD2 = 3 };

/* What a convolution gives. */
enum {
    MT_TO_U8 = 0,
    MT_TO_S16 = 1,
    MT_TO_S16_ADDED = 2, /* s16 added to the stream that the last MT_OP_QUANTIZE read */
    MT_TO_S32 = 3
};

/* One operation; everything behind `kind` is for MT_OP_CONV only. */
typedef struct {
    int32_t kind;
    int32_t side;    /* 1 or 3 */
    int32_t inputs;  /* I */
    int32_t outputs; /* O */
    int32_t output;
    const int8_t* weights; /* [O, side, side, I] */
    const int32_t* bias;   /* [O] */
    const float* scale;    /* [O] */
} mt_stack_op;

/* A value of the input outside [-1024, 1023]; beside the results of multitok_codebook.h. */
enum { MT_OUT_OF_RANGE = 4 };

/* Bit p is set where path p runs on this processor in this build. */
MT_EXPORT uint32_t mt_stack_supported_paths(void);
/* A short name such as "avx512-vnni"; NULL where there is no such path. */
MT_EXPORT const char* mt_stack_path_name(int32_t path);

/* Prepares a stack; weights, biases and scales are copied. The caller has made sure that sums stay below 2^24.
   MT_UNSUPPORTED: the path does not run here, or the operations do not fit together. */
MT_EXPORT int32_t mt_stack_new(const mt_stack_op* ops, int64_t count, int32_t path, mt_stack** stack);
MT_EXPORT void mt_stack_free(mt_stack* stack);

/* `output` [N, H', W', O] of `input` [N, H, W, I], both in C order; every fold of the stack finds even sizes. `pool` or
   NULL for one thread. A thread's working memory grows with W, not with N or H. */
MT_EXPORT int32_t mt_stack_run(const mt_stack* stack, mt_pool* pool, const int16_t* input, int64_t frames,
                               int64_t height, int64_t width, int32_t* output);

#ifdef __cplusplus
}
#endif
#endif
