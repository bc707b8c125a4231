// Fibers, the order in which they run, and the launch of a kernel. See shim.h.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <numeric>

#include "shim_runtime.h"

#if !defined(__x86_64__)
#define SHIM_UCONTEXT
#endif
#ifdef SHIM_UCONTEXT
#include <ucontext.h>
#endif

namespace shim {

Machine machine;

// ---- Fibers ---------------------------------------------------------------------------------------------------------

namespace {

constexpr size_t kStack = 256 << 10, kPage = 4096;
void (*kernel_call)(void**);
void** kernel_arguments;

void run_thread();

#ifdef SHIM_UCONTEXT
// For processors without assembly below: two system calls a switch. A "stack pointer" is that of a ucontext_t, which
// lies on the stack's last page.
void switch_to(void** save, void* to) {
    static ucontext_t of_scheduler;
    if (!*save) *save = &of_scheduler;
    swapcontext(static_cast<ucontext_t*>(*save), static_cast<ucontext_t*>(to));
}
void prepare_stack(Fiber& fiber) {
    auto* context = reinterpret_cast<ucontext_t*>(fiber.stack_high - kPage);
    getcontext(context);
    context->uc_stack.ss_sp = fiber.stack_low + kPage;
    context->uc_stack.ss_size = kStack - 2 * kPage;
    makecontext(context, run_thread, 0);
    fiber.stack_pointer = context;
}
#else
// Saves the registers that a call preserves on the stack that is left, and takes them from the stack that is entered.
asm(R"(
.text
.type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size shim_switch, . - shim_switch
)");
extern "C" void shim_switch(void** save, void* to);
void switch_to(void** save, void* to) { shim_switch(save, to); }
void prepare_stack(Fiber& fiber) {
    auto* top = reinterpret_cast<uintptr_t*>(fiber.stack_high);
    *--top = 0;                                            // keeps the stack aligned as after a call
    *--top = reinterpret_cast<uintptr_t>(&run_thread);
    for (int i = 0; i < 6; i++) *--top = 0;
    fiber.stack_pointer = top;
}
#endif

}  // namespace

void let_others_run() {
    machine.counters.switches++;
    switch_to(&machine.now->stack_pointer, machine.scheduler);
}

void fail(const void* code, const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const Fiber& f = *machine.now;
    char who[160];
    snprintf(who, sizeof who, "thread %u (warp %u, lane %u) of block (%u, %u, %u): ", f.id, f.warp(), f.lane(),
             machine.block.x, machine.block.y, machine.block.z);
    machine.failed = true;
    machine.message = std::string(who) + text;
    machine.failed_at = code;
    let_others_run();
    __builtin_unreachable();  // the scheduler gives up the block
}

// "threads 0-31 wait in __syncthreads (line 12); thread 32 ended; ..."
std::string threads_now() {
    struct Run {
        std::string what;
        unsigned first, last;
    };
    std::vector<Run> runs;
    for (const Fiber& f : machine.fibers) {
        char what[160];
        if (f.state == State::kAtBarrier) snprintf(what, sizeof what, "wait in %s (line %d)", f.where, f.line);
        else if (f.state == State::kInWarp) snprintf(what, sizeof what, "wait in %s (mask %08x)", f.where, f.mask);
        else snprintf(what, sizeof what, f.state == State::kEnded ? "ended" : "run");
        if (runs.empty() || runs.back().what != what) runs.push_back({what, f.id, f.id});
        runs.back().last = f.id;
    }
    std::string text;
    for (const Run& run : runs) {
        if (text.size() > 600) return text + "; ...";
        text += (text.empty() ? "" : "; ") + std::string(run.first == run.last ? "thread " : "threads ");
        text += std::to_string(run.first) + (run.first == run.last ? "" : "-" + std::to_string(run.last));
        text += " " + run.what;
    }
    return text;
}

// ---- What a thread knows about itself -------------------------------------------------------------------------------

uint3 thread_index() { return machine.now->index; }
uint3 block_index() { return machine.block; }
dim3 block_size() { return machine.size; }
dim3 grid_size() { return machine.grid; }
void* dynamic_shared() { return machine.dynamic; }

// ---- Running blocks -------------------------------------------------------------------------------------------------

namespace {

void run_thread() {
    Fiber& f = *machine.now;
    kernel_call(kernel_arguments);
    note_end_of_thread();
    thread_ended(f);
    let_others_run();
}

void prepare_fibers(unsigned count) {
    static std::vector<char*> stacks;
    while (stacks.size() < count) {
        void* low = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (low == MAP_FAILED || mprotect(low, kPage, PROT_NONE) != 0) std::abort();
        stacks.push_back(static_cast<char*>(low));
    }
    machine.fibers.assign(count, Fiber{});
    for (unsigned i = 0; i < count; i++) {
        Fiber& f = machine.fibers[i];
        f.id = i;
        f.index = {i % machine.size.x, i / machine.size.x % machine.size.y, i / (machine.size.x * machine.size.y)};
        f.stack_low = stacks[i], f.stack_high = stacks[i] + kStack;
        f.state = State::kReady;
        prepare_stack(f);
    }
}

// How the threads of a block take turns; each block draws one.
enum Turns { kInOrder, kShuffled, kByWarp, kOneWarpLast, kReversed, kTurns };

void shuffle_turns(std::vector<unsigned>& order, Turns turns) {
    const unsigned count = unsigned(order.size());
    std::iota(order.begin(), order.end(), 0u);
    if (turns == kReversed) std::reverse(order.begin(), order.end());
    if (turns == kShuffled) std::shuffle(order.begin(), order.end(), machine.random);
    if (turns == kByWarp || turns == kOneWarpLast) {
        std::vector<unsigned> warps((count + kWarp - 1) / kWarp);
        std::iota(warps.begin(), warps.end(), 0u);
        std::shuffle(warps.begin(), warps.end(), machine.random);
        order.clear();
        for (unsigned w : warps) {
            for (unsigned i = w * kWarp; i < std::min(count, (w + 1) * kWarp); i++) order.push_back(i);
        }
    }
}

bool run_block(std::vector<unsigned>& order) {
    const Turns turns = machine.seed ? Turns(machine.random() % kTurns) : kInOrder;
    const int patience = turns == kShuffled ? 1 + int(machine.random() % 64) : 1 << 16;
    const unsigned last_warp = turns == kOneWarpLast ? unsigned(machine.random() % ((order.size() + 31) / 32)) : ~0u;
    shuffle_turns(order, turns);
    bool idle = false;  // whether the last round ran nobody: then the warp that comes last may go on
    for (;;) {
        size_t ran = 0, ended = 0, at_barrier = 0, held = 0;
        for (unsigned i : order) {
            Fiber& f = machine.fibers[i];
            if (f.state == State::kReady && f.warp() == last_warp && !idle) held++;
            else if (f.state == State::kReady) {
                ran++;
                machine.now = &f;
                machine.patience = patience == 1 << 16 ? patience : 1 + int(machine.random() % unsigned(patience));
                switch_to(&machine.scheduler, f.stack_pointer);
                if (machine.failed) return false;
            }
            ended += f.state == State::kEnded;
            at_barrier += f.state == State::kAtBarrier;
        }
        if (ended == order.size()) return true;
        idle = ran == 0;
        if (ran || held) continue;
        if (at_barrier + ended != order.size() || !at_barrier) {
            machine.failed = true;
            machine.message = "the block hangs: " + threads_now();
            return false;
        }
        release_barrier();
        if (machine.failed) return false;
        if (turns == kShuffled) shuffle_turns(order, turns);
    }
}

void run_grid() {
    const uint64_t blocks = uint64_t(machine.grid.x) * machine.grid.y * machine.grid.z;
    std::vector<uint64_t> numbers(blocks);
    std::iota(numbers.begin(), numbers.end(), uint64_t(0));
    if (machine.seed) std::shuffle(numbers.begin(), numbers.end(), machine.random);
    std::vector<unsigned> order(machine.size.x * machine.size.y * machine.size.z);
    for (uint64_t b : numbers) {
        machine.block = {unsigned(b % machine.grid.x), unsigned(b / machine.grid.x % machine.grid.y),
                         unsigned(b / machine.grid.x / machine.grid.y)};
        machine.block_start = machine.barrier = ++machine.event;
        poison_shared();
        prepare_fibers(unsigned(order.size()));
        const bool fine = run_block(order);
        machine.now = nullptr;
        if (!fine) return;
    }
}

}  // namespace

}  // namespace shim

// ---- What host_module.py calls --------------------------------------------------------------------------------------

extern "C" {

struct ShimArray {
    const char* name;
    void* address;
    uint64_t bytes;
    uint32_t writable;
};

struct ShimLaunch {
    void (*call)(void**);
    char** module;              // its first byte, the first of its shared arrays, its end
    const unsigned *grid, *block;
    uint64_t dynamic_bytes;
    void** arguments;
    const ShimArray* arrays;
    uint32_t array_count, seed;
    uint64_t budget;            // accesses until the launch counts as hung
    shim::Counters* counters;
    char* message;              // room for 4096 bytes; empty: all went well
    uint64_t failed_at;         // offset into the module, 0 where unknown
};

__attribute__((visibility("default"))) void shim_launch(ShimLaunch* launch) {
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> guard(one_at_a_time);
    using namespace shim;
    machine = Machine{};
    machine.grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
    machine.size = {launch->block[0], launch->block[1], launch->block[2]};
    machine.seed = launch->seed;
    machine.random.seed(launch->seed);
    machine.budget = launch->budget;
    for (uint32_t i = 0; i < launch->array_count; i++) {
        const ShimArray& array = launch->arrays[i];
        Region region;
        region.name = array.name;
        region.begin = reinterpret_cast<uintptr_t>(array.address);
        region.bytes = array.bytes;
        region.writable = array.writable != 0;
        machine.regions.push_back(region);
    }
    start_tracking(launch->module, launch->dynamic_bytes);
    kernel_call = launch->call;
    kernel_arguments = launch->arguments;
    run_grid();
    stop_tracking();
    snprintf(launch->message, 4096, "%s", machine.message.c_str());
    const char* code = static_cast<const char*>(machine.failed_at);
    launch->failed_at = code >= launch->module[0] && code < launch->module[2] ? uint64_t(code - launch->module[0]) : 0;
    *launch->counters = machine.counters;
}

}  // extern "C"
