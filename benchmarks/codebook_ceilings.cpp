// What this processor can do at most: products and sums a second in registers, and bytes read from memory. Compiled
// and run by benchmarks/codebook_search.py. Prints one "name value" line each, in 10^9 operations (bytes) a second of
// all threads; a product and its sum count as two operations. Usage: codebook_ceilings THREADS
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#if defined(__x86_64__)

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static double best_rate(int threads, double work, const std::function<void()>& run) {
    double best = 0;
    for (int repeat = 0; repeat < 7; repeat++) {
        const double begin = now();
        std::vector<std::thread> started;
        for (int t = 1; t < threads; t++) started.emplace_back(run);
        run();
        for (auto& thread : started) thread.join();
        const double rate = threads * work / (now() - begin) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

constexpr int64_t kRounds = 8000000;
// Fourteen independent sums, so that no instruction waits for another.
#define EACH(i, r) i(r, 0) i(r, 1) i(r, 2) i(r, 3) i(r, 4) i(r, 5) i(r, 6) i(r, 7) i(r, 8) i(r, 9) i(r, 10) \
    i(r, 11) i(r, 12) i(r, 13)
#define LOOP(instruction, r) \
    int64_t left = kRounds; \
    asm volatile("vxorps %%" r "14, %%" r "14, %%" r "14\n\tvxorps %%" r "15, %%" r "15, %%" r "15\n\t" \
                 "1:\n\t" EACH(instruction, r) "dec %0\n\tjnz 1b" : "+r"(left) : : "cc", "xmm0", "xmm1", "xmm2", \
                 "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
#define FMA(r, i) "vfmadd231ps %%" r "14, %%" r "15, %%" r #i "\n\t"
#define INT16(r, i) "vpdpwssd %%" r "14, %%" r "15, %%" r #i "\n\t"
#define INT8(r, i) "vpdpbusd %%" r "14, %%" r "15, %%" r #i "\n\t"
constexpr double kSums = 14.0 * kRounds;

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("fma")) {
        printf("float32-avx2 %.0f\n", best_rate(threads, kSums * 16, [] { LOOP(FMA, "ymm"); }));
    }
    if (__builtin_cpu_supports("avx512f")) {
        printf("float32-avx512 %.0f\n", best_rate(threads, kSums * 32, [] { LOOP(FMA, "zmm"); }));
    }
    if (__builtin_cpu_supports("avx512vnni")) {
        printf("int16-vnni %.0f\n", best_rate(threads, kSums * 64, [] { LOOP(INT16, "zmm"); }));
        printf("int8-vnni %.0f\n", best_rate(threads, kSums * 128, [] { LOOP(INT8, "zmm"); }));
    }
    const size_t count = size_t{1} << 27;
    std::vector<uint64_t> memory(count, 1);
    const double rate = best_rate(threads, 8.0 * count / threads, [&] {
        static thread_local volatile uint64_t sink;
        uint64_t sum = 0;
        // Every thread reads its share; which one does not matter for the rate.
        for (size_t i = 0; i < count / threads; i++) sum += memory[i];
        sink = sum;
    });
    printf("memory %.0f\n", rate);
}
#else
int main() {}
#endif
