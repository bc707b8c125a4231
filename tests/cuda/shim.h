// CUDA's vocabulary for g++: a .cu file that includes this compiles into a library whose kernels run on the CPU.
//
// Every CUDA thread is a fiber with a stack of its own; the fibers of a block take turns in one thread of the system,
// in an order drawn from a seed, and blocks run one after the other in a drawn order. shim.cpp holds the fibers,
// barriers and warp functions, shim_memory.cpp the checks. The kernels are compiled with -fsanitize=thread and
// -fsanitize=undefined, but without those libraries: shim_memory.cpp answers the calls they insert, and so sees
// every load and store of a kernel with its address. Errors it finds:
//   - accesses outside the arrays passed, the shared memory asked for, or the thread's own stack; misaligned ones
//   - writes through pointers to const
//   - reads of shared memory that this block has not written
//   - two threads at the same word, one of them writing, with no barrier between (only __syncthreads and __syncwarp
//     order memory; shuffles, votes and mma do not), or two blocks without atomics
//   - touching what cp.async has not delivered, threads that end with copies under way
//   - __syncthreads in part of a block, warp functions whose masks disagree or lack the caller, mma or ldmatrix by part
//     of a warp, hangs
//   - signed overflow, shifts too far, indices outside arrays of known size
// Not seen: the order in which real memory shows writes of different blocks, speed, and the asm of primitives.cuh.
//
// As in nvcc, a * b + c may become one fused operation (-ffp-contract=fast); __dmul_rn and its kin never do.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// Compiled without the calls into shim_memory.cpp.
#define SHIM_UNSEEN __attribute__((no_sanitize("thread"), no_sanitize("undefined")))

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define SHIM_VECTORS(T, name)                                                     \
    struct alignas(8) name##2 { T x, y; };                                        \
    struct alignas(16) name##4 { T x, y, z, w; };                                 \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                    \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SHIM_VECTORS(float, float)
SHIM_VECTORS(int, int)
SHIM_VECTORS(unsigned, uint)
#undef SHIM_VECTORS

namespace shim {

// Attribute const: the answer stays the same throughout a thread, so the compiler may ask once.
uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
dim3 block_size() __attribute__((const));
dim3 grid_size() __attribute__((const));

// The memory asked for at the launch, filled with NaN, its end at a page that cannot be touched.
void* dynamic_shared();

void barrier(int line);
void sync_warp(unsigned mask);
enum Shuffle { kIndex, kUp, kDown, kXor };
void shuffle(Shuffle kind, unsigned mask, const void* value, void* result, unsigned bytes, int lane, int width);
unsigned ballot(unsigned mask, bool predicate);

// Checks an atomic access and lets other threads run before it; the caller then reads and writes at once.
void atomic(const void* address, unsigned bytes);

// ldmatrix.sync.aligned.m8n8.x4.shared.b16: each lane gives the address of a row of 16 bytes.
void ldmatrix_x4(unsigned* tiles, const void* row);
// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32. Odd seeds round the sums as carelessly as the hardware may.
void mma_bf16(float* sums, const unsigned* rows, const unsigned* columns);

// cp.async of 16 bytes: delivered at a moment between the call and the wait that the seed draws; until the wait the
// destination may not be touched.
void cp_async_16(void* shared, const void* global);
void cp_async_commit();
void cp_async_wait(int groups_left);

// What the launch layer has to know of one parameter of a kernel.
struct Parameter {
    uint32_t bytes;         // width of the argument
    uint32_t kind;          // 'p'ointer, 'f'loat, 'i'nteger, 's'truct
    uint32_t writable;      // pointer: to what is not const
    uint32_t item_bytes;    // pointer: width of what it points to, 0 for void
    uint32_t item_kind;
};

template <class T> constexpr uint32_t kind_of() {
    if (std::is_pointer<T>::value) return 'p';
    return std::is_floating_point<T>::value ? 'f' : std::is_integral<T>::value ? 'i' : 's';
}
template <class T> constexpr uint32_t width_of() {
    if constexpr (std::is_void<T>::value) return 0;
    else return sizeof(T);
}
template <class A> constexpr Parameter describe() {
    using Item = typename std::remove_pointer<A>::type;
    return {sizeof(A), kind_of<A>(), std::is_pointer<A>::value && !std::is_const<Item>::value,
            std::is_pointer<A>::value ? width_of<Item>() : 0, kind_of<typename std::remove_cv<Item>::type>()};
}
template <class... A> int describe_kernel(void (*)(A...), Parameter* parameters, int room) {
    const Parameter all[] = {describe<typename std::remove_cv<A>::type>()..., Parameter{}};
    for (int i = 0; i < int(sizeof...(A)) && i < room; i++) parameters[i] = all[i];
    return sizeof...(A);
}
template <class... A, size_t... I>
SHIM_UNSEEN void call_kernel(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    (void)arguments;
    kernel(*static_cast<typename std::remove_cv<A>::type*>(arguments[I])...);
}
template <class... A> void call_kernel(void (*kernel)(A...), void** arguments) {
    call_kernel(kernel, arguments, std::index_sequence_for<A...>{});
}

}  // namespace shim

// host_module.py puts one of these after the source for each kernel that it was asked for, and SHIM_MODULE once.
#define SHIM_KERNEL(index, ...)                                                                      \
    extern "C" __attribute__((visibility("default"))) int shim_describe_##index(shim::Parameter* p, int room) { \
        return shim::describe_kernel(&__VA_ARGS__, p, room);                                         \
    }                                                                                                \
    extern "C" __attribute__((visibility("default"))) void shim_call_##index(void** arguments) {     \
        shim::call_kernel(&__VA_ARGS__, arguments);                                                  \
    }
// The library's writable memory holds nothing but the `__shared__` arrays of its kernels.
#define SHIM_MODULE                                                                                  \
    extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], __bss_start[], _end[];     \
    extern "C" __attribute__((visibility("default"))) void shim_module(char** bounds) {              \
        bounds[0] = __ehdr_start, bounds[1] = __bss_start, bounds[2] = _end;                         \
    }

#define threadIdx (shim::thread_index())
#define blockIdx (shim::block_index())
#define blockDim (shim::block_size())
#define gridDim (shim::grid_size())
constexpr int warpSize = 32;

#define __syncthreads() (shim::barrier(__LINE__))
inline void __syncwarp(unsigned mask = 0xffffffffu) { shim::sync_warp(mask); }

#define SHIM_SHUFFLE(name, kind, Lane)                                                               \
    template <class T> inline T name(unsigned mask, T value, Lane lane, int width = 32) {            \
        static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "");       \
        T result;                                                                                    \
        shim::shuffle(kind, mask, &value, &result, sizeof(T), int(lane), width);                     \
        return result;                                                                               \
    }
SHIM_SHUFFLE(__shfl_sync, shim::kIndex, int)
SHIM_SHUFFLE(__shfl_up_sync, shim::kUp, unsigned)
SHIM_SHUFFLE(__shfl_down_sync, shim::kDown, unsigned)
SHIM_SHUFFLE(__shfl_xor_sync, shim::kXor, int)
#undef SHIM_SHUFFLE
inline unsigned __ballot_sync(unsigned mask, int predicate) { return shim::ballot(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return shim::ballot(mask, predicate != 0) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return shim::ballot(mask, predicate == 0) == 0; }

// Atomics, for the types that CUDA has them for. They return what was there before.
#define SHIM_ATOMIC(name, T, expression)                                                             \
    SHIM_UNSEEN inline T name(T* address, T value) {                                                 \
        shim::atomic(address, sizeof(T));                                                            \
        const T old = *address;                                                                      \
        *address = (expression);                                                                     \
        return old;                                                                                  \
    }
SHIM_ATOMIC(atomicAdd, int, int(unsigned(old) + unsigned(value)))
SHIM_ATOMIC(atomicAdd, unsigned, old + value)
SHIM_ATOMIC(atomicAdd, unsigned long long, old + value)
SHIM_ATOMIC(atomicAdd, float, old + value)
SHIM_ATOMIC(atomicMin, int, old < value ? old : value)
SHIM_ATOMIC(atomicMin, long long, old < value ? old : value)
SHIM_ATOMIC(atomicMax, int, old > value ? old : value)
SHIM_ATOMIC(atomicMax, long long, old > value ? old : value)
#undef SHIM_ATOMIC

// Arithmetic that is never fused: the compiler cannot look through SHIM_OPAQUE.
#if defined(__x86_64__)
#define SHIM_OPAQUE(value) asm("" : "+x"(value))
#elif defined(__aarch64__)
#define SHIM_OPAQUE(value) asm("" : "+w"(value))
#else
#define SHIM_OPAQUE(value) asm("" : "+m"(value))
#endif
#define SHIM_ROUNDED(name, T, operation)                                                             \
    inline T name(T a, T b) {                                                                        \
        SHIM_OPAQUE(a);                                                                              \
        SHIM_OPAQUE(b);                                                                              \
        T result = a operation b;                                                                    \
        SHIM_OPAQUE(result);                                                                         \
        return result;                                                                               \
    }
SHIM_ROUNDED(__dadd_rn, double, +)
SHIM_ROUNDED(__dsub_rn, double, -)
SHIM_ROUNDED(__dmul_rn, double, *)
SHIM_ROUNDED(__ddiv_rn, double, /)
SHIM_ROUNDED(__fadd_rn, float, +)
SHIM_ROUNDED(__fsub_rn, float, -)
SHIM_ROUNDED(__fmul_rn, float, *)
SHIM_ROUNDED(__fdiv_rn, float, /)
#undef SHIM_ROUNDED
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float __double2float_ru(double a) {
    const float near = float(a);
    return double(near) < a ? nextafterf(near, INFINITY) : near;
}
inline long long __double2ll_rn(double a) { return llrint(a); }

using std::isfinite;
#define SHIM_MINMAX(T)                                     \
    inline T min(T a, T b) { return b < a ? b : a; }       \
    inline T max(T a, T b) { return a < b ? b : a; }
SHIM_MINMAX(int)
SHIM_MINMAX(unsigned)
SHIM_MINMAX(long long)
#undef SHIM_MINMAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }

#define SHIM_BITS(name, To, From)                                                                    \
    inline To name(From value) {                                                                     \
        static_assert(sizeof(To) == sizeof(From), "");                                               \
        To result;                                                                                   \
        __builtin_memcpy(&result, &value, sizeof result);                                            \
        return result;                                                                               \
    }
SHIM_BITS(__float_as_uint, unsigned, float)
SHIM_BITS(__uint_as_float, float, unsigned)
SHIM_BITS(__double_as_longlong, long long, double)
SHIM_BITS(__longlong_as_double, double, long long)
#undef SHIM_BITS

// primitives.cuh, the part with a body for the GPU only.
#define MULTITOK_DYNAMIC_SHARED(name) unsigned char* name = static_cast<unsigned char*>(shim::dynamic_shared())
inline void mma_m16n8k16_bf16(float (&sums)[4], const unsigned (&rows)[4], const unsigned (&columns)[2]) {
    shim::mma_bf16(sums, rows, columns);
}
inline void ldmatrix_x4(unsigned (&tiles)[4], const void* row) { shim::ldmatrix_x4(tiles, row); }
inline void copy_async_16(void* shared, const void* global) { shim::cp_async_16(shared, global); }
inline void copy_async_commit() { shim::cp_async_commit(); }
template <int PENDING>
inline void copy_async_wait() {
    shim::cp_async_wait(PENDING);
}
