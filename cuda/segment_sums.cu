// Counts and sums of the vectors of each code in 64-bit integers: the same bits in whatever order the atomics land.
//
// A value v enters as the integer nearest to v * 2^exponent, ties to even, as in mt_segment_sums of
// native/multitok_codebook.h. The caller chooses the exponent such that no sum overflows
// (multitok/codebook/segment_sums.py). Where few codes share the atomics of many blocks, blocks take turns on several
// copies of the sums, which the caller adds up.
#include "primitives.cuh"

constexpr int kThreads = 256;
constexpr int kRows = 64;  // vectors of a block

// counts [copies, size], sums [copies, size, dim], both starting at 0. `*bad_row` is lowered to the first row with a
// NaN, an infinity or a value too large for the exponent, `*bad_code` to the first with a code outside [0, size);
// neither such values nor such rows are added. dim < 2^25.
template <typename Value>
__global__ void __launch_bounds__(kThreads)
segment_sums(const Value* __restrict__ vectors, index_t row_stride, index_t count, int dim,
             const index_t* __restrict__ codes, int size, double scale, int copies, unsigned long long* counts,
             unsigned long long* sums, index_t* bad_row, index_t* bad_code) {
    const index_t first_row = static_cast<index_t>(blockIdx.x) * kRows;
    const int rows = static_cast<int>(count - first_row < kRows ? count - first_row : kRows);
    const index_t copy = blockIdx.x % copies;
    for (int i = threadIdx.x; i < rows * dim; i += kThreads) {
        const int local_row = i / dim, d = i - local_row * dim;
        const index_t row = first_row + local_row;
        const index_t code = codes[row];
        if (code < 0 || code >= size) {
            if (d == 0) atomicMin(bad_code, row);
            continue;
        }
        if (d == 0) atomicAdd(&counts[copy * size + code], 1ull);
        const double scaled = static_cast<double>(vectors[row * row_stride + d]) * scale;
        if (fabs(scaled) < 9.2e18) {  // not so for a NaN either
            const long long rounded = __double2ll_rn(scaled);
            if (rounded != 0) {
                atomicAdd(&sums[(copy * size + code) * dim + d], static_cast<unsigned long long>(rounded));
            }
        } else {
            atomicMin(bad_row, row);
        }
    }
}
