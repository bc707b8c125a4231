// mt_segment_sums on buffers that end where the memory ends, with one and with several threads: the same sums.
#include <cstdio>
#include <vector>

#include "handles.h"

int main() {
    mt_pool pool(4);
    unsigned state = 1;
    const auto random = [&state](unsigned below) { return (state = state * 1664525u + 1013904223u) / 65536u % below; };
    struct Shape { int64_t count, dim, size; };
    for (const Shape s : {Shape{20000, 7, 5}, {5000, 100, 300}, {3, 1, 1}, {40000, 16, 9}, {1, 33, 4}}) {
        std::vector<float> vectors(static_cast<size_t>(s.count * s.dim));
        std::vector<int32_t> codes(static_cast<size_t>(s.count));
        for (float& value : vectors) value = static_cast<float>(random(2001)) / 16 - 60;
        for (int32_t& code : codes) code = static_cast<int32_t>(random(static_cast<unsigned>(s.size)));
        std::vector<int64_t> counts[2], sums[2];
        for (int i = 0; i < 2; i++) {
            counts[i].assign(static_cast<size_t>(s.size), 0);
            sums[i].assign(static_cast<size_t>(s.size * s.dim), 0);
            int64_t bad_row = -1;
            if (mt_segment_sums(i ? &pool : nullptr, vectors.data(), MT_FLOAT32, s.count, s.dim, s.dim, codes.data(),
                                s.size, 35, counts[i].data(), sums[i].data(), &bad_row) != MT_OK) {
                return std::puts("failed"), 1;
            }
        }
        if (counts[0] != counts[1] || sums[0] != sums[1]) return std::puts("different"), 1;
    }
    std::puts("equal");
}
