// What a path of the integer convolution stacks is given: one row of one convolution at a time.
#pragma once

#include <cstdint>

namespace multitok {

// Outputs of a block of weights; a last block of at most kOutputGroup outputs holds kOutputGroup.
constexpr int kBlockOutputs = 32, kOutputGroup = 16;
// Pixels that a path may read and write beyond those it is asked for.
constexpr int kOverrun = 3;

// Pixels `pixels` of one row of a convolution. Pixels lie `..._pitch` bytes apart.
struct ConvRow {
    const char* rows[3];     // rows of taps, at the leftmost tap of the first pixel; nullptr: zeros
    int taps;                // rows of taps, 1 or 3
    bool pairs;              // values are int16, two a word; else as the path keeps activations
    int64_t pitch;
    int64_t words;           // 32-bit words of one row of taps of one pixel, which are contiguous
    const int32_t* weights;  // [blocks][taps][words][outputs of the block], a word as those of the values
    const int32_t* bias;     // [groups * kOutputGroup]
    const float* scale;      // likewise
    int64_t groups;          // of kOutputGroup outputs
    int32_t output;          // MT_TO_...
    const char* stream;      // MT_TO_S16_ADDED: int16 to add to
    int64_t stream_pitch;
    char* to;                // activations as the path keeps them, int16 or int32
    int64_t to_pitch;
    int64_t pixels;
};

struct StackPath {
    bool (*supported)();
    int activation_bytes;  // how u8 values are kept: as uint8, four a word, or as int16, two a word
    void (*conv)(const ConvRow& row);
    // s16 to u8 as `activation_bytes` says; `count` is a multiple of kOutputGroup.
    void (*quantize)(const int16_t* from, int64_t count, void* to);
};

const StackPath* stack_portable_path();
const StackPath* stack_avx2_path();
const StackPath* stack_avx_vnni_path();
const StackPath* stack_avx512_path();
const StackPath* stack_avx512_vnni_path();

}  // namespace multitok
