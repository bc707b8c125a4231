// Arithmetic with directed rounding. Compiled with -frounding-math. See shim.h.
#include <cfenv>

#include "shim.h"

namespace {

template <class Operation>
auto rounded(int direction, Operation operation) {
    const int before = fegetround();
    fesetround(direction);
    const volatile auto result = operation();
    fesetround(before);
    return result;
}

}  // namespace

#define SHIM_DIRECTED(T, letter, suffix, direction)                                                                \
    T __##letter##add_##suffix(volatile T a, volatile T b) { return rounded(direction, [&] { return a + b; }); }   \
    T __##letter##sub_##suffix(volatile T a, volatile T b) { return rounded(direction, [&] { return a - b; }); }   \
    T __##letter##mul_##suffix(volatile T a, volatile T b) { return rounded(direction, [&] { return a * b; }); }   \
    T __##letter##div_##suffix(volatile T a, volatile T b) { return rounded(direction, [&] { return a / b; }); }   \
    T __##letter##sqrt_##suffix(volatile T a) { return rounded(direction, [&] { return std::sqrt(a); }); }
SHIM_DIRECTED(float, f, ru, FE_UPWARD)
SHIM_DIRECTED(float, f, rd, FE_DOWNWARD)
SHIM_DIRECTED(float, f, rz, FE_TOWARDZERO)
SHIM_DIRECTED(double, d, ru, FE_UPWARD)
SHIM_DIRECTED(double, d, rd, FE_DOWNWARD)
SHIM_DIRECTED(double, d, rz, FE_TOWARDZERO)

float __fmaf_ru(volatile float a, volatile float b, volatile float c) {
    return rounded(FE_UPWARD, [&] { return std::fma(float(a), float(b), float(c)); });
}
float __fmaf_rd(volatile float a, volatile float b, volatile float c) {
    return rounded(FE_DOWNWARD, [&] { return std::fma(float(a), float(b), float(c)); });
}
float __double2float_ru(volatile double a) { return rounded(FE_UPWARD, [&] { return float(a); }); }
float __double2float_rd(volatile double a) { return rounded(FE_DOWNWARD, [&] { return float(a); }); }
float __double2float_rz(volatile double a) { return rounded(FE_TOWARDZERO, [&] { return float(a); }); }
