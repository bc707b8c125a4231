// Barriers, warp functions, ldmatrix and mma. See shim.h.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "shim_runtime.h"

namespace shim {

void barrier(int line) {
    Fiber& f = *machine.now;
    f.where = "__syncthreads", f.line = line, f.code = __builtin_return_address(0);
    f.state = State::kAtBarrier;
    let_others_run();
}

// All threads that have not ended wait in __syncthreads: they go on. Called by the scheduler.
void release_barrier() {
    const Fiber* first = nullptr;
    for (const Fiber& f : machine.fibers) {
        if (f.state != State::kAtBarrier) continue;
        if (!first) first = &f;
        if (f.line != first->line) {
            machine.failed = true;
            machine.message = "threads of a block meet in different __syncthreads: " + threads_now();
            machine.failed_at = f.code;
            return;
        }
    }
    machine.barrier = ++machine.event;
    machine.counters.barriers++;
    for (Fiber& f : machine.fibers) {
        if (f.state == State::kAtBarrier) f.state = State::kReady;
    }
}

namespace {

unsigned lanes_of(const Fiber& f) {  // lanes of its warp that exist
    const unsigned first = f.id - f.lane();
    const unsigned count = std::min<unsigned>(kWarp, unsigned(machine.fibers.size()) - first);
    return count == kWarp ? ~0u : (1u << count) - 1;
}

// Whether all lanes in the caller's mask that have not ended wait in the same function with the same mask; then
// `members` are those.
bool all_wait(const Fiber& caller, unsigned* members) {
    const Fiber* warp = &caller - caller.lane();
    const unsigned existing = lanes_of(caller);
    *members = 0;
    for (unsigned l = 0; l < kWarp; l++) {
        if (!((caller.mask & existing) >> l & 1) || warp[l].state == State::kEnded) continue;
        if (warp[l].state != State::kInWarp) return false;
        if (warp[l].mask != caller.mask || warp[l].where != caller.where) {
            if (!(warp[l].mask >> caller.lane() & 1)) return false;
            fail(caller.code, "%s with mask %08x, while lane %u waits in %s with mask %08x", caller.where, caller.mask,
                 l, warp[l].where, warp[l].mask);
        }
        *members |= 1u << l;
    }
    return true;
}

// The last lane to come (or to end) works out the results of all.
void finish(Fiber& f, unsigned members) {
    Fiber* warp = &f - f.lane();
    if (f.needs_whole_warp && members != ~0u) {
        fail(f.code, "%s by lanes %08x of a warp: it needs all 32", f.where, members);
    }
    f.combine(warp, members);
    for (unsigned l = 0; l < kWarp; l++) {
        if (members >> l & 1) warp[l].state = State::kReady;
    }
}

// Waits until every lane in `mask` calls the same function with the same mask.
void meet(const char* where, unsigned mask, const void* input, void* output, bool needs_whole_warp,
          void (*combine)(Fiber*, unsigned), const void* code) {
    Fiber& f = *machine.now;
    if (!(mask >> f.lane() & 1)) fail(code, "%s with mask %08x, which lacks the caller", where, mask);
    f.where = where, f.mask = mask, f.input = input, f.output = output, f.code = code;
    f.needs_whole_warp = needs_whole_warp, f.combine = combine;
    f.state = State::kInWarp;
    unsigned members;
    if (all_wait(f, &members)) {
        finish(f, members);
    } else {
        let_others_run();
    }
}

void combine_sync(Fiber* warp, unsigned members) {
    const uint32_t event = ++machine.event;
    uint32_t seen[kWarp] = {};
    for (unsigned l = 0; l < kWarp; l++) {
        for (unsigned i = 0; members >> l & 1 && i < kWarp; i++) seen[i] = std::max(seen[i], warp[l].seen[i]);
    }
    for (unsigned l = 0; l < kWarp; l++) {
        if (members >> l & 1) seen[l] = event;
    }
    for (unsigned l = 0; l < kWarp; l++) {
        if (members >> l & 1) std::copy(seen, seen + kWarp, warp[l].seen);
    }
}

struct ShuffleInput {
    Shuffle kind;
    unsigned bytes;
    int lane, width;
    unsigned char value[8];
};

// PTX ISA, shfl.sync: the source lane, or the lane itself where the source lies outside its segment.
unsigned source_lane(const ShuffleInput& in, unsigned lane) {
    const unsigned segment = 32 - unsigned(in.width), first = lane & segment, last = first | (~segment & 31);
    const int asked = in.lane, own = int(lane);
    switch (in.kind) {
        case kIndex: return first | (unsigned(asked) & ~segment & 31);
        case kUp: return own - asked >= int(first) ? unsigned(own - asked) : lane;
        case kDown: return own + asked <= int(last) ? unsigned(own + asked) : lane;
        default: return (lane ^ unsigned(asked)) <= last ? lane ^ unsigned(asked) : lane;
    }
}

void combine_shuffle(Fiber* warp, unsigned members) {
    for (unsigned l = 0; l < kWarp; l++) {
        if (!(members >> l & 1)) continue;
        const auto& in = *static_cast<const ShuffleInput*>(warp[l].input);
        const unsigned source = source_lane(in, l);
        if (!(members >> source & 1)) {
            fail(warp[l].code, "lane %u shuffles from lane %u, which does not take part", l, source);
        }
        memcpy(warp[l].output, static_cast<const ShuffleInput*>(warp[source].input)->value, in.bytes);
    }
}

void combine_ballot(Fiber* warp, unsigned members) {
    unsigned votes = 0;
    for (unsigned l = 0; l < kWarp; l++) {
        if (members >> l & 1 && *static_cast<const bool*>(warp[l].input)) votes |= 1u << l;
    }
    for (unsigned l = 0; l < kWarp; l++) {
        if (members >> l & 1) *static_cast<unsigned*>(warp[l].output) = votes;
    }
}

// Tile m of 8x8 16-bit values: row r at the address of lane 8 m + r; lane l receives columns 2 (l % 4) and + 1 of row
// l / 4. Eight rows in the same banks of shared memory would be read one after the other, so conflicts are counted.
void combine_ldmatrix(Fiber* warp, unsigned) {
    machine.counters.ldmatrix++;
    for (unsigned m = 0; m < 4; m++) {
        unsigned banks = 0;
        for (unsigned r = 0; r < 8; r++) banks |= 1u << (uintptr_t(warp[8 * m + r].input) / 16 % 8);
        machine.counters.bank_conflicts += 8 - unsigned(__builtin_popcount(banks));
        for (unsigned l = 0; l < kWarp; l++) {
            const auto* row = static_cast<const char*>(warp[8 * m + l / 4].input);
            memcpy(static_cast<unsigned*>(warp[l].output) + m, row + 4 * (l % 4), 4);
        }
    }
}

struct MmaInput {
    const unsigned *rows, *columns;
    const float* sums;
};

float bf16(const unsigned* registers, unsigned i) {
    return __uint_as_float(i % 2 ? registers[i / 2] & 0xffff0000u : registers[i / 2] << 16);
}

// One step of a tensor core: the terms cut (not rounded) at the last bit of the largest, added, and the sum cut.
// After Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores", with no extra bits: the least careful form.
float add_cut(float sum, const double* terms, int count) {
    double largest = std::fabs(double(sum));
    for (int i = 0; i < count; i++) largest = std::max(largest, std::fabs(terms[i]));
    if (largest == 0 || !std::isfinite(largest)) {
        double plain = sum;
        for (int i = 0; i < count; i++) plain += terms[i];
        return float(plain);
    }
    const double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
    int64_t total = int64_t(sum / unit);
    for (int i = 0; i < count; i++) total += int64_t(terms[i] / unit);
    const double value = double(total) * unit;
    float result = float(value);
    if (std::fabs(double(result)) > std::fabs(value)) result = std::nextafterf(result, 0.0f);
    return result;
}

// PTX ISA, fragments of m16n8k16: lane l holds rows l / 4 and + 8 of A and D, columns 2 (l % 4) and + 1, and + 8 of A;
// of B rows 2 (l % 4), + 1, + 8, + 9 of column l / 4.
void combine_mma(Fiber* warp, unsigned) {
    machine.counters.mma++;
    const auto input = [&](unsigned lane) { return *static_cast<const MmaInput*>(warp[lane].input); };
    float a[16][16], b[16][8];
    for (unsigned l = 0; l < kWarp; l++) {
        const MmaInput in = input(l);
        const unsigned g = l / 4, t = l % 4;
        for (unsigned i = 0; i < 8; i++) a[g + 8 * (i / 2 % 2)][2 * t + i % 2 + 8 * (i / 4)] = bf16(in.rows, i);
        for (unsigned i = 0; i < 4; i++) b[2 * t + i % 2 + 8 * (i / 2)][g] = bf16(in.columns, i);
    }
    for (unsigned l = 0; l < kWarp; l++) {
        float d[4];
        for (unsigned i = 0; i < 4; i++) {
            const unsigned row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
            double terms[16];
            for (int k = 0; k < 16; k++) terms[k] = double(a[row][k]) * double(b[k][column]);
            const float c = input(l).sums[i];
            d[i] = machine.seed % 2 ? add_cut(add_cut(c, terms, 8), terms + 8, 8)
                                    : float(std::accumulate(terms, terms + 16, double(c)));
        }
        memcpy(warp[l].output, d, sizeof d);
    }
}

}  // namespace

void sync_warp(unsigned mask) {
    meet("__syncwarp", mask, nullptr, nullptr, false, combine_sync, __builtin_return_address(0));
}

void shuffle(Shuffle kind, unsigned mask, const void* value, void* result, unsigned bytes, int lane, int width) {
    static const char* const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
    if (width <= 0 || width > 32 || (width & (width - 1))) {
        fail(__builtin_return_address(0), "%s with width %d", names[kind], width);
    }
    ShuffleInput input{kind, bytes, lane, width, {}};
    memcpy(input.value, value, bytes);
    meet(names[kind], mask, &input, result, false, combine_shuffle, __builtin_return_address(0));
}

unsigned ballot(unsigned mask, bool predicate) {
    unsigned votes = 0;
    meet("a vote", mask, &predicate, &votes, false, combine_ballot, __builtin_return_address(0));
    return votes;
}

void ldmatrix_x4(unsigned* tiles, const void* row) {
    unsigned loaded[4];
    check(row, 16, Access::kRead, __builtin_return_address(0));
    meet("ldmatrix", ~0u, row, loaded, true, combine_ldmatrix, __builtin_return_address(0));
    memcpy(tiles, loaded, sizeof loaded);
}

void mma_bf16(float* sums, const unsigned* rows, const unsigned* columns) {
    const MmaInput input{rows, columns, sums};
    float result[4];
    meet("mma", ~0u, &input, result, true, combine_mma, __builtin_return_address(0));
    memcpy(sums, result, sizeof result);
}

// Those who waited only for this thread go on.
void thread_ended(Fiber& f) {
    f.state = State::kEnded;
    Fiber* warp = &f - f.lane();
    for (unsigned l = 0, members; l < kWarp && lanes_of(f) >> l & 1; l++) {
        if (warp[l].state == State::kInWarp && all_wait(warp[l], &members)) finish(warp[l], members);
    }
}

}  // namespace shim
