// Kernels for test_shim.py: some right, and one for each fault that the shim has to find.
#include "../../cuda/primitives.cuh"

// ---- Right ----------------------------------------------------------------------------------------------------------

__global__ void reverse_blocks(const int* in, int* out, int count) {
    __shared__ int tile[128];
    const int i = blockIdx.x * 128 + threadIdx.x;
    tile[threadIdx.x] = i < count ? in[i] : 0;
    __syncthreads();
    if (i < count) out[i] = tile[127 - threadIdx.x];
}

__global__ void warp_functions(int* out) {
    const int lane = threadIdx.x;
    out[lane] = __shfl_sync(MULTITOK_ALL_LANES, lane, lane + 1);
    out[32 + lane] = __shfl_up_sync(MULTITOK_ALL_LANES, lane, 3);
    out[64 + lane] = __shfl_xor_sync(MULTITOK_ALL_LANES, lane, 9);
    out[96 + lane] = __shfl_xor_sync(MULTITOK_ALL_LANES, lane, 4, 8);
    out[128 + lane] = static_cast<int>(__ballot_sync(MULTITOK_ALL_LANES, lane % 3 == 0));
    out[160 + lane] = __any_sync(MULTITOK_ALL_LANES, lane == 40);
    out[192 + lane] = __shfl_sync(MULTITOK_ALL_LANES, lane, 2, 8);
    out[224 + lane] = lane < 8 ? __shfl_xor_sync(0xffu, lane, 1) : -1;
}

// One multiplication of 16 x 16 by 16 x 8, operands by ldmatrix from what cp.async brought.
__global__ void multiply(const bfloat16_bits* rows, const bfloat16_bits* columns, const float* sums, float* out) {
    MULTITOK_DYNAMIC_SHARED(memory);
    bfloat16_bits* tile = reinterpret_cast<bfloat16_bits*>(memory);
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    copy_async_16(tile + lane * 8, rows + lane * 8);
    copy_async_commit();
    if (lane < 16) copy_async_16(tile + 256 + lane * 8, columns + lane * 8);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    unsigned a[4], b[4];
    ldmatrix_x4(a, tile + (lane % 16) * 16 + lane / 16 * 8);
    ldmatrix_x4(b, tile + 256 + (lane % 8) * 16 + lane / 8 % 2 * 8);
    const unsigned b_two[2] = {b[0], b[1]};
    float d[4];
    for (int i = 0; i < 4; i++) d[i] = sums[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma_m16n8k16_bf16(d, a, b_two);
    for (int i = 0; i < 4; i++) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

__global__ void count_all(const int* in, int count, int* total, unsigned long long* wide, long long* lowest) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    atomicAdd(total, in[i]);
    atomicAdd(wide, static_cast<unsigned long long>(static_cast<long long>(in[i])));
    atomicMin(lowest, static_cast<long long>(in[i]));
}

// Neighbours through shared memory, ordered by __syncwarp alone.
__global__ void rotate_in_warp(int* out) {
    __shared__ int slots[64];
    slots[threadIdx.x] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = slots[(threadIdx.x & ~31) + ((threadIdx.x + 1) & 31)];
}

__global__ void arithmetic(const double* in, double* out) {
    out[0] = in[0] * in[1] + in[2];
    out[1] = __dadd_rn(__dmul_rn(in[0], in[1]), in[2]);
    out[2] = __double2float_ru(in[3]);
}

// out[i]: when thread i came.
__global__ void tickets(int* next, int* out) {
    out[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(next, 1);
}

// Two lanes share each word, but no bytes: nothing needs an order.
__global__ void halves_of_words(bfloat16_bits* out) {
    __shared__ bfloat16_bits tile[32];
    for (int i = 0; i < 3; i++) {
        tile[threadIdx.x] = static_cast<bfloat16_bits>(threadIdx.x + i);
        out[threadIdx.x] = tile[threadIdx.x];
    }
}

// ---- Wrong ----------------------------------------------------------------------------------------------------------

__global__ void missing_barrier(int* out) {
    __shared__ int tile[64];
    tile[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void missing_barrier_before_reuse(int* out) {
    __shared__ int tile[64];
    for (int i = 0; i < 2; i++) {
        tile[threadIdx.x] = i;
        __syncthreads();
        out[threadIdx.x] = tile[63 - threadIdx.x];
    }
}

__global__ void shuffle_is_no_barrier(int* out) {
    __shared__ int tile[32];
    tile[threadIdx.x] = threadIdx.x;
    const int lane = __shfl_sync(MULTITOK_ALL_LANES, static_cast<int>(threadIdx.x), 5);
    out[threadIdx.x] = tile[31 - threadIdx.x] + lane;
}

__global__ void warp_barrier_is_too_small(int* out) {
    __shared__ int tile[64];
    tile[threadIdx.x] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void plain_count(int* total) { *total += 1; }

__global__ void half_a_barrier(int* out) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = 1;
    __syncthreads();
}

__global__ void wrong_mask(int* out) { out[threadIdx.x] = __shfl_sync(0xffu, 1, 0); }

__global__ void masks_disagree(int* out) {
    const unsigned mask = threadIdx.x < 16 ? MULTITOK_ALL_LANES : 0xffffff00u;
    out[threadIdx.x] = threadIdx.x < 8 ? 0 : __shfl_sync(mask, 1, 9);
}

__global__ void lane_misses_vote(int* out) {
    if (threadIdx.x != 3) out[threadIdx.x] = __any_sync(MULTITOK_ALL_LANES, 1);
    __syncthreads();
}

__global__ void mma_by_half(float* out) {
    float d[4] = {};
    const unsigned a[4] = {}, b[2] = {};
    if (threadIdx.x < 16) mma_m16n8k16_bf16(d, a, b);
    out[threadIdx.x] = d[0];
}

__global__ void reads_past_end(const int* in, int* out, int count) { out[threadIdx.x] = in[threadIdx.x + count - 31]; }

__global__ void writes_past_end(int* out, int count) { out[threadIdx.x + count - 31] = 0; }

__global__ void writes_const(const int* in) { const_cast<int*>(in)[threadIdx.x] = 0; }

__global__ void shared_past_end(int* out) {
    MULTITOK_DYNAMIC_SHARED(memory);
    memory[threadIdx.x + 1] = 0;
    out[threadIdx.x] = 0;
}

__global__ void reads_unwritten(int* out) {
    __shared__ int tile[64];
    if (threadIdx.x < 32) tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void misaligned(const float* in, float* out) {
    out[threadIdx.x] = reinterpret_cast<const float4*>(in + 1)[0].x;
}

__global__ void async_not_waited(const float* in, float* out) {
    __shared__ __align__(16) float tile[128];
    copy_async_16(tile + 4 * threadIdx.x, in + 4 * threadIdx.x);
    copy_async_commit();
    copy_async_wait<1>();
    out[threadIdx.x] = tile[4 * threadIdx.x];
    copy_async_wait<0>();
}

__global__ void async_without_barrier(const float* in, float* out) {
    __shared__ __align__(16) float tile[128];
    copy_async_16(tile + 4 * threadIdx.x, in + 4 * threadIdx.x);
    copy_async_commit();
    copy_async_wait<0>();
    out[threadIdx.x] = tile[124 - 4 * threadIdx.x];
}

__global__ void async_left(const float* in) {
    __shared__ __align__(16) float tile[128];
    copy_async_16(tile + 4 * threadIdx.x, in + 4 * threadIdx.x);
    copy_async_commit();
}

__global__ void overflow(int* out, int rows) { out[threadIdx.x] = rows * rows; }

__global__ void index_outside(int* out, int at) {
    __shared__ int one[8], two[8];
    one[threadIdx.x] = two[threadIdx.x] = 0;
    out[threadIdx.x] = one[at] + two[0];
}

__global__ void never_ends(const int* in, int* out) {
    while (in[0] == 0) {
    }
    out[0] = 1;
}

__global__ void blocks_share_a_word(int* out) { out[0] = blockIdx.x; }
