// Runs programs compiled with the real tile instructions on processors that lack them: such an instruction raises an
// invalid opcode, Linux makes that a signal, and the handler here does what the instruction says, with
// amx_emulation.h, on the registers of the interrupted thread. So the very machine code that a user gets is tested.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, sections 2.1 and 2.3 (ModR/M, SIB and
// VEX bytes) and the instructions' pages.
#pragma once

#include <csignal>
#include <cstdint>
#include <cstring>

#include <ucontext.h>

#include "amx_emulation.h"

namespace amx_trap {

inline struct sigaction before;
inline std::atomic<int64_t> instructions{0};

// General register by its number in machine code.
inline int64_t general(const ucontext_t* context, int number) {
    static const int names[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return context->uc_mcontext.gregs[names[number]];
}

// An instruction with a three-byte VEX prefix and the opcode map of the tile instructions.
struct Instruction {
    int opcode, prefix, vector, reg, rm;  // prefix: 0 none, 1 66, 2 F3, 3 F2
    bool in_register;
    int64_t address = 0, index = 0;       // of an operand in memory; `index`: the register that holds the stride
    int64_t length;
};

inline bool decode(const ucontext_t* context, Instruction* made) {
    const auto* const code = reinterpret_cast<const uint8_t*>(context->uc_mcontext.gregs[REG_RIP]);
    const bool tile_map = code[0] == 0xc4 && (code[1] & 0x1f) == 2 && (code[2] & 0x84) == 0;
    if (!tile_map) return false;
    const int extend_index = code[1] & 0x40 ? 0 : 8, extend_base = code[1] & 0x20 ? 0 : 8;
    made->vector = ~(code[2] >> 3) & 0xf;
    made->prefix = code[2] & 3;
    made->opcode = code[3];
    const int mod = code[4] >> 6;
    made->reg = code[4] >> 3 & 7;
    made->rm = code[4] & 7;
    made->in_register = mod == 3;
    made->length = 5;
    if (made->in_register) return true;
    const uint8_t* rest = code + 5;
    int64_t base = 0;
    int displacement = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    bool relative = false;
    if (made->rm == 4) {
        const int sib = *rest++, index = (sib >> 3 & 7) + extend_index, base_number = (sib & 7);
        if (index != 4) made->index = general(context, index) << (sib >> 6);
        if (base_number == 5 && mod == 0) {
            displacement = 4;
        } else {
            base = general(context, base_number + extend_base);
        }
    } else if (made->rm == 5 && mod == 0) {
        displacement = 4;
        relative = true;
    } else {
        base = general(context, made->rm + extend_base);
    }
    if (displacement == 1) base += static_cast<int8_t>(*rest);
    if (displacement == 4) {
        int32_t far;
        std::memcpy(&far, rest, sizeof far);
        base += far;
    }
    made->length = rest + displacement - code;
    if (relative) base += context->uc_mcontext.gregs[REG_RIP] + made->length;
    made->address = base;
    return true;
}

inline bool execute(const Instruction& i) {
    using namespace amx_emulation;
    auto* const memory = reinterpret_cast<void*>(i.address);
    if (i.opcode == 0x49 && i.prefix == 0 && !i.in_register && i.reg == 0) return load_config(memory), true;
    if (i.opcode == 0x49 && i.prefix == 0 && i.in_register && i.reg == 0 && i.rm == 0) return release(), true;
    if (i.opcode == 0x49 && i.prefix == 3 && i.in_register) return zero(i.reg), true;
    if (i.opcode == 0x4b && i.prefix == 3 && !i.in_register) return load(i.reg, memory, i.index), true;
    if (i.opcode == 0x4b && i.prefix == 2 && !i.in_register) return store(i.reg, memory, i.index), true;
    if (i.opcode == 0x5c && i.prefix == 2 && i.in_register) return multiply_bfloat16(i.reg, i.rm, i.vector), true;
    return false;
}

inline void handle(int signal, siginfo_t*, void* given) {
    auto* const context = static_cast<ucontext_t*>(given);
    Instruction instruction;
    if (!decode(context, &instruction) || !execute(instruction)) {
        sigaction(signal, &before, nullptr);  // another invalid opcode: the instruction is run again, untrapped
        return;
    }
    instructions++;
    context->uc_mcontext.gregs[REG_RIP] += instruction.length;
}

inline void install() {
    struct sigaction action {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, &before);
}

inline void remove() { sigaction(SIGILL, &before, nullptr); }

}  // namespace amx_trap
