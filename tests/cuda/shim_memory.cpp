// The checks: answers the calls that -fsanitize=thread and -fsanitize=undefined put into kernels; and cp.async.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shim_runtime.h"

namespace shim {

// ---- Regions --------------------------------------------------------------------------------------------------------

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kPageMask = kPage - 1;
size_t dynamic_bytes;
char* dynamic_pages;
size_t dynamic_mapped;
char *static_begin, *static_end;
size_t recent;  // the region found last

void* map_pages(size_t bytes) {
    void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
        fprintf(stderr, "shim: no address space for %zu bytes\n", bytes);
        std::abort();
    }
    return pages;
}

void add_region(const char* name, char* begin, char* end, Place place, bool writable) {
    Region region;
    region.name = name;
    region.begin = reinterpret_cast<uintptr_t>(begin);
    region.bytes = size_t(end - begin);
    region.place = place;
    region.writable = writable;
    machine.regions.push_back(region);
}

Region* find(uintptr_t address) {
    const auto holds = [&](const Region& r) { return address - r.begin < r.bytes; };
    if (recent < machine.regions.size() && holds(machine.regions[recent])) return &machine.regions[recent];
    for (size_t i = 0; i < machine.regions.size(); i++) {
        if (holds(machine.regions[i])) return &machine.regions[recent = i];
    }
    return nullptr;
}

// "12 bytes after `argument 2` (400 bytes)", for an address in no region.
std::string nearest_region(uintptr_t address) {
    const Region* best = nullptr;
    uintptr_t best_distance = ~uintptr_t(0);
    for (const Region& r : machine.regions) {
        const uintptr_t distance = address < r.begin ? r.begin - address : address - (r.begin + r.bytes);
        if (distance < best_distance) best = &r, best_distance = distance;
    }
    if (!best) return "nowhere near an array";
    const char* side = address < best->begin ? " bytes before " : " bytes after the end of ";
    return std::to_string(best_distance) + side + best->name + " (" + std::to_string(best->bytes) + " bytes)";
}

}  // namespace

void start_tracking(char** module, size_t bytes_asked) {
    dynamic_bytes = bytes_asked;
    dynamic_mapped = (dynamic_bytes + kPageMask) / kPage * kPage;
    dynamic_pages = static_cast<char*>(map_pages(dynamic_mapped + kPage));
    mprotect(dynamic_pages + dynamic_mapped, kPage, PROT_NONE);
    machine.dynamic = dynamic_pages + dynamic_mapped - (dynamic_bytes + 15) / 16 * 16;
    add_region("dynamic shared memory", machine.dynamic, machine.dynamic + dynamic_bytes, Place::kShared, true);
    static_begin = module[1], static_end = module[2];
    add_region("static shared memory", static_begin, static_end, Place::kShared, true);
    add_region("the constants of the module", module[0], module[1], Place::kConstant, false);
    for (Region& r : machine.regions) {
        if (!r.writable || !r.bytes) continue;
        r.mapped = (r.bytes / 4 + 2) * sizeof(Word);
        r.words = static_cast<Word*>(map_pages(r.mapped));
    }
    recent = 0;
}

void stop_tracking() {
    for (Region& r : machine.regions) {
        if (r.words) munmap(r.words, r.mapped);
    }
    munmap(dynamic_pages, dynamic_mapped + kPage);
}

void poison_shared() {
    memset(machine.dynamic, 0xff, dynamic_bytes);  // NaN in every float type, -1 in every integer
    memset(static_begin, 0xff, size_t(static_end - static_begin));
}

// ---- The check of one access ----------------------------------------------------------------------------------------

// Whether all of `touch` happened before what `fiber` does now.
bool ordered(const Touch& touch, const Fiber& fiber) {
    if (touch.event < machine.barrier) return true;
    if (touch.warp != fiber.warp()) return false;
    for (uint32_t lanes = touch.lanes & ~(1u << fiber.lane()); lanes; lanes &= lanes - 1) {
        if (fiber.seen[__builtin_ctz(lanes)] <= touch.event) return false;
    }
    return true;
}

namespace {

const char* name_of(Access access) {
    return access == Access::kRead ? "reads" : access == Access::kWrite ? "writes" : "atomically changes";
}

std::string who(const Touch& touch) {
    if (touch.event < machine.block_start) return "another block";
    if (touch.warp == kAnyWarp) return "threads of several warps";
    const std::string warp = " of warp " + std::to_string(touch.warp);
    if (touch.lanes & (touch.lanes - 1)) return "several lanes" + warp;
    return "lane " + std::to_string(__builtin_ctz(touch.lanes)) + warp;
}

[[noreturn]] void report(const Region& region, uintptr_t address, unsigned bytes, Access access, const void* code,
                         const std::string& what) {
    const size_t offset = address - region.begin;
    fail(code, "%s %u bytes at %s + %zu: %s", name_of(access), bytes, region.name.c_str(), offset, what.c_str());
}

// Whether an earlier touch may have come at the same time as this access.
bool races(const Touch& touch, const Region& region, uint8_t bytes, Access access) {
    if (!touch.event || !(touch.bytes & bytes)) return false;
    if (access == Access::kAtomic && touch.flags & kAtomic) return false;
    if (touch.event < machine.block_start) return region.place == Place::kGlobal;
    return !ordered(touch, *machine.now);
}

void add(Touch& touch, uint8_t bytes, uint8_t flags) {
    const Fiber& f = *machine.now;
    const uint32_t lane = 1u << f.lane();
    // Of threads that touch different bytes of a word only the last is remembered.
    const bool together = touch.event >= machine.block_start && touch.bytes & bytes && !ordered(touch, f);
    if (!together) {
        touch = {machine.event, lane, uint16_t(f.warp()), bytes, flags};
        return;
    }
    touch.warp = touch.warp == f.warp() ? touch.warp : kAnyWarp;
    touch.lanes |= lane;
    touch.event = machine.event;
    touch.bytes |= bytes;
    touch.flags = flags;
}

void check_word(Region& region, Word& word, uint8_t bytes, uintptr_t address, unsigned size, Access access,
                const void* code) {
    const auto complain = [&](const std::string& what) { report(region, address, size, access, code, what); };
    if (word.write.flags & kUnderWay && word.write.event >= machine.block_start && word.write.bytes & bytes) {
        complain("cp.async of " + who(word.write) + " has not been waited for");
    }
    if (races(word.write, region, bytes, access)) {
        complain(who(word.write) + " wrote it with nothing in between that orders the two");
    }
    const bool defined = word.defined >= machine.block_start && (word.defined_bytes & bytes) == bytes;
    if (access != Access::kWrite && region.place == Place::kShared && !defined) {
        complain("no thread of this block has written it");
    }
    if (access == Access::kRead) {
        add(word.read, bytes, 0);
        return;
    }
    if (races(word.read, region, bytes, access)) {
        complain(who(word.read) + " read it with nothing in between that orders the two");
    }
    add(word.write, bytes, access == Access::kAtomic ? kAtomic : 0);
    if (word.defined < machine.block_start) word.defined_bytes = 0;
    word.defined = machine.block_start;
    word.defined_bytes |= bytes;
}

template <class Visit>
void for_words(Region& region, uintptr_t address, unsigned size, Visit visit) {
    const uintptr_t first = region.begin & ~uintptr_t(3);
    for (uintptr_t at = address, end = address + size; at < end;) {
        const unsigned skip = at & 3, count = unsigned(std::min<uintptr_t>(4 - skip, end - at));
        visit(region.words[(at - first) / 4], uint8_t(((1u << count) - 1) << skip));
        at += count;
    }
}

void count_access(const void* code) {
    if (--machine.patience <= 0) {
        machine.patience = 1 << 16;
        let_others_run();
    }
    if (++machine.counters.accesses > machine.budget) {
        const auto budget = static_cast<unsigned long long>(machine.budget);
        fail(code, "no end after %llu accesses to memory: %s", budget, threads_now().c_str());
    }
}

// Address, then place, then order. Returns null for the thread's own stack.
Region* check_place(uintptr_t address, unsigned bytes, Access access, const void* code) {
    const Fiber& f = *machine.now;
    if (address - uintptr_t(f.stack_low) < uintptr_t(f.stack_high - f.stack_low)) return nullptr;
    Region* region = find(address);
    if (!region) {
        fail(code, "%s %u bytes outside all arrays, %s", name_of(access), bytes, nearest_region(address).c_str());
    }
    const char* complaint = nullptr;
    if (address + bytes > region->begin + region->bytes) complaint = "runs over the end";
    if (access != Access::kRead && !region->writable) complaint = "it is const";
    if ((bytes & (bytes - 1)) == 0 && bytes <= 16 && address % bytes) complaint = "misaligned";
    if (complaint) report(*region, address, bytes, access, code, complaint);
    return region;
}

}  // namespace

void check(const void* pointer, unsigned bytes, Access access, const void* code) {
    if (!machine.now) return;
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    Region* region = check_place(address, bytes, access, code);
    if (!region) return;
    count_access(code);
    if (!region->words) return;
    for_words(*region, address, bytes, [&](Word& word, uint8_t mask) {
        check_word(*region, word, mask, address, bytes, access, code);
    });
}

void atomic(const void* address, unsigned bytes) {
    const void* code = __builtin_return_address(0);
    if (machine.seed && machine.random() % 4 == 0) let_others_run();
    check(address, bytes, Access::kAtomic, code);
}

// ---- cp.async -------------------------------------------------------------------------------------------------------

void cp_async_16(void* shared, const void* global) {
    constexpr unsigned kBytes = 16;
    const void* code = __builtin_return_address(0);
    Fiber& f = *machine.now;
    const auto to = reinterpret_cast<uintptr_t>(shared), from = reinterpret_cast<uintptr_t>(global);
    check(shared, kBytes, Access::kWrite, code);
    Region* target = find(to);
    if (!target || target->place != Place::kShared) fail(code, "cp.async to what is not shared memory");
    const Region* source = find(from);
    if (source && source->place == Place::kShared) fail(code, "cp.async from shared memory");
    check(global, kBytes, Access::kRead, code);
    for_words(*target, to, kBytes, [](Word& word, uint8_t) { word.write.flags |= kUnderWay; });
    const bool early = machine.seed && machine.random() % 2;
    if (early) {
        memcpy(shared, global, kBytes);
    } else {
        memset(shared, 0xff, kBytes);
    }
    f.copies.push_back({shared, global, f.group, early});
    machine.counters.copies++;
}

void cp_async_commit() { machine.now->group++; }

// Copies of all groups but the newest `groups_left` have arrived, and count as written by this thread now.
void cp_async_wait(int groups_left) {
    Fiber& f = *machine.now;
    const auto done = [&](const Copy& copy) { return copy.group < f.group - groups_left; };
    for (const Copy& copy : f.copies) {
        if (!done(copy)) continue;
        if (!copy.arrived) memcpy(copy.to, copy.from, 16);
        const auto to = reinterpret_cast<uintptr_t>(copy.to);
        for_words(*find(to), to, 16, [&](Word& word, uint8_t mask) {
            word.write = {machine.event, 1u << f.lane(), uint16_t(f.warp()), mask, 0};
        });
    }
    f.copies.erase(std::remove_if(f.copies.begin(), f.copies.end(), done), f.copies.end());
}

void note_end_of_thread() {
    const size_t left = machine.now->copies.size();
    if (left) fail(nullptr, "ends with %zu copies by cp.async under way", left);
}

}  // namespace shim

// ---- What the compiler calls ----------------------------------------------------------------------------------------

#define EXPORT extern "C" __attribute__((visibility("default")))
#define HERE __builtin_return_address(0)

EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
#define SHIM_HOOKS(bytes)                                                                                          \
    EXPORT void __tsan_read##bytes(void* p) { shim::check(p, bytes, shim::Access::kRead, HERE); }                  \
    EXPORT void __tsan_write##bytes(void* p) { shim::check(p, bytes, shim::Access::kWrite, HERE); }                \
    EXPORT void __tsan_unaligned_read##bytes(void* p) { shim::check(p, bytes, shim::Access::kRead, HERE); }        \
    EXPORT void __tsan_unaligned_write##bytes(void* p) { shim::check(p, bytes, shim::Access::kWrite, HERE); }
SHIM_HOOKS(1)
SHIM_HOOKS(2)
SHIM_HOOKS(4)
SHIM_HOOKS(8)
SHIM_HOOKS(16)
EXPORT void __tsan_read_range(void* p, size_t bytes) { shim::check(p, unsigned(bytes), shim::Access::kRead, HERE); }
EXPORT void __tsan_write_range(void* p, size_t bytes) { shim::check(p, unsigned(bytes), shim::Access::kWrite, HERE); }

// The data that -fsanitize=undefined passes begins with where it is in the source.
struct UndefinedData {
    const char* file;
    uint32_t line, column;
};
static void undefined(const UndefinedData* data, const char* what, const void* code) {
    if (!shim::machine.now) return;
    const char* slash = strrchr(data->file, '/');
    shim::fail(code, "%s (%s:%u:%u)", what, slash ? slash + 1 : data->file, data->line, data->column);
}
#define SHIM_UNDEFINED(name, what) \
    EXPORT void __ubsan_handle_##name(UndefinedData* data) { undefined(data, what, HERE); }
SHIM_UNDEFINED(add_overflow, "signed overflow in an addition")
SHIM_UNDEFINED(sub_overflow, "signed overflow in a subtraction")
SHIM_UNDEFINED(mul_overflow, "signed overflow in a product")
SHIM_UNDEFINED(negate_overflow, "signed overflow in a negation")
SHIM_UNDEFINED(divrem_overflow, "division by zero or overflow in one")
SHIM_UNDEFINED(shift_out_of_bounds, "a shift by too much or of a negative number")
SHIM_UNDEFINED(out_of_bounds, "an index outside its array")
SHIM_UNDEFINED(float_cast_overflow, "a float that its integer type cannot hold")
SHIM_UNDEFINED(type_mismatch_v1, "a misaligned or null pointer is read through")
