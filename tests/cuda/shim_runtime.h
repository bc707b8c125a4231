// What shim.cpp (fibers, barriers, warps) and shim_memory.cpp (checks of every access) share. See shim.h.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "shim.h"

namespace shim {

constexpr unsigned kWarp = 32;

// One copy of 16 bytes that cp.async has begun.
struct Copy {
    void* to;
    const void* from;
    int group;          // number of the group it belongs to
    bool arrived;       // the bytes are there already, though nobody may look yet
};

enum class State : uint8_t { kReady, kInWarp, kAtBarrier, kEnded };

struct Fiber {
    void* stack_pointer = nullptr;
    char *stack_low = nullptr, *stack_high = nullptr;
    unsigned id = 0;                    // number in the block
    uint3 index{};
    State state = State::kEnded;
    const char* where = "";             // what it waits in
    const void* code = nullptr;         // address of that call
    int line = 0;                       // of the barrier
    unsigned mask = 0;                  // of the warp function
    bool needs_whole_warp = false;
    void (*combine)(Fiber* warp, unsigned members) = nullptr;
    const void* input = nullptr;        // on the fiber's own stack
    void* output = nullptr;
    uint32_t seen[kWarp] = {};          // what lane i of this warp did before event seen[i] happened before now
    std::vector<Copy> copies;
    int group = 0;                      // commit groups closed so far
    unsigned lane() const { return id % kWarp; }
    unsigned warp() const { return id / kWarp; }
};

// Threads that touched a word: all in one warp, or anywhere in the block.
struct Touch {
    uint32_t event;     // number of the last synchronising event before the last of them; 0: nobody
    uint32_t lanes;
    uint16_t warp;      // or kAnyWarp
    uint8_t bytes;      // which of the word's 4 bytes
    uint8_t flags;      // kAtomic, kUnderWay
};
constexpr uint16_t kAnyWarp = 0xffff;
enum : uint8_t { kAtomic = 1, kUnderWay = 2 };

struct Word {
    Touch write, read;
    uint32_t defined;   // the event from which on the written bytes count, and which bytes
    uint32_t defined_bytes;
};

enum class Place : uint8_t { kShared, kGlobal, kConstant };

// Memory that kernels may touch. `words` is null where nothing is followed: what nobody may write.
struct Region {
    std::string name;
    uintptr_t begin = 0;
    size_t bytes = 0;
    Place place = Place::kGlobal;
    bool writable = false;
    Word* words = nullptr;
    size_t mapped = 0;  // bytes of `words`
};

struct Counters {
    uint64_t accesses, switches, barriers, mma, copies, ldmatrix, bank_conflicts;
};

// One launch: the block that runs now and everything about it.
struct Machine {
    dim3 grid, size;
    uint3 block{};
    std::vector<Fiber> fibers;
    Fiber* now = nullptr;               // null outside kernels
    void* scheduler = nullptr;          // its stack pointer
    uint32_t event = 1;                 // synchronising events so far
    uint32_t block_start = 1, barrier = 1;  // events at which this block started, at which all threads last met
    std::vector<Region> regions;
    char* dynamic = nullptr;
    unsigned seed = 0;
    std::mt19937 random;
    int patience = 0;                   // accesses until the running fiber has to let others run
    uint64_t budget = 0;                // accesses until the launch counts as hung
    bool failed = false;
    std::string message;
    const void* failed_at = nullptr;    // an address in the kernel's code
    Counters counters{};
};
extern Machine machine;

// Writes what went wrong and leaves the kernel for good.
[[noreturn]] void fail(const void* code, const char* format, ...) __attribute__((format(printf, 2, 3)));
void let_others_run();
std::string threads_now();
void release_barrier();
void thread_ended(Fiber& fiber);

enum class Access : uint8_t { kRead, kWrite, kAtomic };
void check(const void* address, unsigned bytes, Access access, const void* code);
void start_tracking(char** module, size_t dynamic_bytes);
void stop_tracking();
void poison_shared();
void note_end_of_thread();
bool ordered(const Touch& touch, const Fiber& fiber);

}  // namespace shim
