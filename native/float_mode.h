// How floats round while results are made that every processor must agree on.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace multitok {

// Rounding to nearest, denormals kept, while it lives: a caller's thread may be set otherwise, by
// torch.set_flush_denormal for one, and neither a bound nor a definition would hold.
class FloatMode {
  public:
#if defined(__SSE2__)
    FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~FloatMode() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#elif defined(__aarch64__)
    FloatMode() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
    }
    ~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

  private:
    uint64_t saved_;
#endif
};

}  // namespace multitok
