// Random integer stacks through the C interface, each compared with what multitok/nets/program.py defines, written out
// plainly. Prints the paths that ran, or the stack that went wrong and ends with 1. Compiled and run with sanitizers by
// tests/nets/test_native_sanitizers.py; every array lies in a block of exactly its size, so that a read or a write beyond
// it is seen.
//
//     stack_exercise <stacks> <seed>
//     stack_exercise overrun | race         a call that the sanitizers must not let pass
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "multitok_stacks.h"

namespace {

using Random = std::mt19937_64;

int64_t between(Random& random, int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
}

struct Frames {
    int64_t n, h, w, c;
    std::vector<int64_t> values;
    Frames(int64_t n, int64_t h, int64_t w, int64_t c) : n(n), h(h), w(w), c(c), values(static_cast<size_t>(n * h * w * c)) {}
    int64_t& at(int64_t f, int64_t y, int64_t x, int64_t i) { return values[static_cast<size_t>(((f * h + y) * w + x) * c + i)]; }
};

struct Op {
    mt_stack_op op{};
    std::unique_ptr<int8_t[]> weights;
    std::unique_ptr<int32_t[]> bias;
    std::unique_ptr<float[]> scale;
};

Op plain(int32_t kind) {
    Op made;
    made.op.kind = kind;
    return made;
}

Op conv(Random& random, int64_t inputs, int64_t outputs, int side, int32_t output, int64_t largest) {
    Op made;
    const int64_t taps = side * side * inputs, reach = std::min<int64_t>(128, ((1 << 24) - 70000) / (largest * taps));
    made.weights.reset(new int8_t[outputs * taps]);
    made.bias.reset(new int32_t[outputs]);
    made.scale.reset(new float[outputs]);
    for (int64_t i = 0; i < outputs * taps; i++) made.weights[i] = static_cast<int8_t>(between(random, -reach, std::min<int64_t>(reach, 127)));
    const double wanted = output == MT_TO_U8 ? 200 : output == MT_TO_S32 ? 1e6 : 20000;
    const double spread = std::sqrt(static_cast<double>(taps)) * static_cast<double>(reach * largest) / 2 + 1;
    for (int64_t o = 0; o < outputs; o++) {
        made.bias[o] = static_cast<int32_t>(between(random, -65536, 65536));
        made.scale[o] = between(random, 0, 9) == 0 ? 0.5f : static_cast<float>(wanted / spread * static_cast<double>(between(random, 1, 9)) / 4);
    }
    made.op = {MT_OP_CONV, side, static_cast<int32_t>(inputs), static_cast<int32_t>(outputs), output, made.weights.get(), made.bias.get(), made.scale.get()};
    return made;
}

Frames convolved(const Op& o, Frames& x) {
    const mt_stack_op& op = o.op;
    Frames y(x.n, x.h, x.w, op.outputs);
    const int64_t reach = op.side / 2;
    for (int64_t f = 0; f < x.n; f++)
        for (int64_t r = 0; r < x.h; r++)
            for (int64_t c = 0; c < x.w; c++)
                for (int64_t out = 0; out < op.outputs; out++) {
                    int64_t sum = op.bias[out];
                    for (int64_t tap = 0; tap < op.side * op.side; tap++) {
                        const int64_t row = r + tap / op.side - reach, column = c + tap % op.side - reach;
                        if (row < 0 || row >= x.h || column < 0 || column >= x.w) continue;
                        const int8_t* w = op.weights + (out * op.side * op.side + tap) * op.inputs;
                        for (int64_t i = 0; i < op.inputs; i++) sum += w[i] * x.at(f, row, column, i);
                    }
                    const double v = std::nearbyint(static_cast<float>(sum) * op.scale[out]);
                    const double low = op.output == MT_TO_U8 ? 0 : op.output == MT_TO_S32 ? -2147483648.0 : -32768;
                    const double high = op.output == MT_TO_U8 ? 255 : op.output == MT_TO_S32 ? 2147483647.0 : 32767;
                    y.at(f, r, c, out) = static_cast<int64_t>(std::min(std::max(v, low), high));
                }
    return y;
}

Frames run(const std::vector<Op>& ops, Frames x) {
    Frames stream = x;
    for (const Op& op : ops) {
        if (op.op.kind == MT_OP_CONV) {
            x = convolved(op, x);
            if (op.op.output == MT_TO_S16_ADDED) {
                for (size_t i = 0; i < x.values.size(); i++) {
                    x.values[i] = std::min<int64_t>(std::max<int64_t>(x.values[i] + stream.values[i], -32768), 32767);
                }
            }
        } else if (op.op.kind == MT_OP_QUANTIZE) {
            stream = x;
            for (int64_t& v : x.values) v = std::min<int64_t>(std::max<int64_t>((v + 8) >> 4, 0), 255);
        } else {
            const bool folds = op.op.kind == MT_OP_FOLD2;
            Frames y = folds ? Frames(x.n, x.h / 2, x.w / 2, 4 * x.c) : Frames(x.n, 2 * x.h, 2 * x.w, x.c / 4);
            Frames& fine = folds ? x : y;
            Frames& coarse = folds ? y : x;
            for (int64_t f = 0; f < x.n; f++)
                for (int64_t r = 0; r < fine.h; r++)
                    for (int64_t c = 0; c < fine.w; c++)
                        for (int64_t i = 0; i < fine.c; i++) {
                            int64_t& a = fine.at(f, r, c, i);
                            int64_t& b = coarse.at(f, r / 2, c / 2, (2 * (r % 2) + c % 2) * fine.c + i);
                            folds ? b = a : a = b;
                        }
            x = y;
        }
    }
    return x;
}

void residuals(Random& random, int64_t channels, std::vector<Op>* ops) {
    for (int64_t i = between(random, 0, 2); i > 0; i--) {
        const int64_t inner = between(random, 1, 40);
        ops->push_back(plain(MT_OP_QUANTIZE));
        ops->push_back(conv(random, channels, inner, 3, MT_TO_U8, 255));
        ops->push_back(conv(random, inner, channels, 3, MT_TO_S16_ADDED, 255));
    }
}

std::vector<Op> random_stack(Random& random, int64_t inputs, bool* folds) {
    const int64_t fine = between(random, 1, 36), coarse = between(random, 1, 36), outputs = between(random, 1, 36);
    std::vector<Op> ops;
    *folds = false;
    switch (between(random, 0, 2)) {
        case 0:
            ops.push_back(conv(random, inputs, fine, 3, MT_TO_U8, 1024));
            ops.push_back(conv(random, fine, coarse, 3, MT_TO_U8, 255));
            ops.push_back(conv(random, coarse, outputs, 1, MT_TO_S32, 255));
            break;
        case 1:
            *folds = true;
            ops.push_back(conv(random, inputs, fine, 3, MT_TO_S16, 1024));
            residuals(random, fine, &ops);
            ops.push_back(plain(MT_OP_QUANTIZE));
            ops.push_back(plain(MT_OP_FOLD2));
            ops.push_back(conv(random, 4 * fine, coarse, 1, MT_TO_S16, 255));
            residuals(random, coarse, &ops);
            ops.push_back(plain(MT_OP_QUANTIZE));
            ops.push_back(conv(random, coarse, outputs, 1, MT_TO_S32, 255));
            break;
        default:
            ops.push_back(conv(random, inputs, coarse, 3, MT_TO_S16, 1024));
            residuals(random, coarse, &ops);
            ops.push_back(plain(MT_OP_QUANTIZE));
            ops.push_back(conv(random, coarse, 4 * fine, 1, MT_TO_S16, 255));
            ops.push_back(plain(MT_OP_UNFOLD2));
            residuals(random, fine, &ops);
            ops.push_back(plain(MT_OP_QUANTIZE));
            ops.push_back(conv(random, fine, outputs, 3, MT_TO_S32, 255));
    }
    return ops;
}

std::vector<mt_stack_op> plain_ops(const std::vector<Op>& ops) {
    std::vector<mt_stack_op> given;
    for (const Op& op : ops) given.push_back(op.op);
    return given;
}

bool exercise(Random& random, mt_pool* const (&pools)[3]) {
    const int64_t inputs = between(random, 1, 20);
    bool folds;
    const std::vector<Op> ops = random_stack(random, inputs, &folds);
    const int64_t step = folds ? 2 : 1;
    Frames x(between(random, 1, 5), step * between(random, 1, 12), step * between(random, 1, 12), inputs);
    std::unique_ptr<int16_t[]> input(new int16_t[x.values.size()]);
    const bool ends = between(random, 0, 3) == 0;
    for (size_t i = 0; i < x.values.size(); i++) {
        x.values[i] = ends ? between(random, 0, 1) * 2047 - 1024 : between(random, -1024, 1023);
        input[i] = static_cast<int16_t>(x.values[i]);
    }
    const Frames expected = run(ops, x);
    for (int32_t path = 1; path < MT_STACK_PATHS; path++) {
        if (!(mt_stack_supported_paths() >> path & 1)) continue;
        mt_stack* stack = nullptr;
        if (mt_stack_new(plain_ops(ops).data(), static_cast<int64_t>(ops.size()), path, &stack) != MT_OK) return false;
        for (mt_pool* pool : pools) {
            std::unique_ptr<int32_t[]> output(new int32_t[expected.values.size()]);
            if (mt_stack_run(stack, pool, input.get(), x.n, x.h, x.w, output.get()) != MT_OK) return false;
            for (size_t i = 0; i < expected.values.size(); i++) {
                if (output[i] != expected.values[i]) {
                    printf("%s: value %zu is %d, should be %lld\n", mt_stack_path_name(path), i, output[i], static_cast<long long>(expected.values[i]));
                    return false;
                }
            }
        }
        mt_stack_free(stack);
    }
    return true;
}

// Stacks that do not fit together are refused, whatever the caller has checked.
bool refuses(Random& random) {
    const auto refused = [](std::vector<Op> ops, int64_t height) {
        mt_stack* stack = nullptr;
        const auto given = plain_ops(ops);
        const int32_t status = mt_stack_new(given.data(), static_cast<int64_t>(given.size()), MT_STACK_AUTO, &stack);
        if (status == MT_UNSUPPORTED) return true;
        std::vector<int16_t> input(static_cast<size_t>(height * 4 * 3));
        std::vector<int32_t> output(1 << 16);
        const bool bad = mt_stack_run(stack, nullptr, input.data(), 1, height, 4, output.data()) == MT_UNSUPPORTED;
        mt_stack_free(stack);
        return bad;
    };
    const auto made = [&](int64_t inputs, int64_t outputs, int32_t output) { return conv(random, inputs, outputs, 3, output, 1024); };
    const auto listed = [](auto... ops) {
        std::vector<Op> list;
        (list.push_back(std::move(ops)), ...);
        return list;
    };
    return refused({}, 4) && refused(listed(made(3, 4, MT_TO_S32)), 4) &&
           refused(listed(made(3, 4, MT_TO_U8), made(5, 4, MT_TO_S32)), 4) &&
           refused(listed(made(3, 4, MT_TO_S16), made(4, 4, MT_TO_S32)), 4) &&
           refused(listed(made(3, 4, MT_TO_U8), made(4, 4, MT_TO_S16_ADDED), plain(MT_OP_QUANTIZE), made(4, 4, MT_TO_S32)), 4) &&
           refused(listed(made(3, 4, MT_TO_U8), plain(MT_OP_FOLD2), made(16, 4, MT_TO_S32)), 5) &&
           !refused(listed(made(3, 4, MT_TO_U8), plain(MT_OP_FOLD2), made(16, 4, MT_TO_S32)), 4);
}

// What no caller may do, to see that the sanitizers watch the library.
void misuse(const std::string& how) {
    Random random(1);
    std::vector<Op> ops;
    ops.push_back(conv(random, 4, 16, 3, MT_TO_U8, 1024));
    ops.push_back(conv(random, 16, 16, 3, MT_TO_S32, 255));
    mt_stack* stack = nullptr;
    mt_stack_new(plain_ops(ops).data(), 2, MT_STACK_PORTABLE, &stack);
    const int64_t side = 40;
    std::vector<int16_t> input(side * side * 4);
    std::vector<int32_t> output(side * side * 16);
    if (how == "overrun") {
        mt_stack_run(stack, nullptr, input.data(), 1, side + 1, side, output.data());
    } else {
        const auto work = [&] { mt_stack_run(stack, nullptr, input.data(), 1, side, side, output.data()); };
        std::thread other(work);
        work();
        other.join();
    }
    mt_stack_free(stack);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2) {
        misuse(argv[1]);
        return 0;
    }
    const int64_t stacks = std::atoll(argv[1]);
    Random random(static_cast<uint64_t>(std::atoll(argv[2])));
    mt_pool* const pools[3] = {nullptr, mt_pool_new(2), mt_pool_new(5)};
    if (!refuses(random)) {
        printf("a stack that does not fit together was taken\n");
        return 1;
    }
    for (int64_t i = 0; i < stacks; i++) {
        if (!exercise(random, pools)) {
            printf("stack %lld went wrong\n", static_cast<long long>(i));
            return 1;
        }
    }
    for (mt_pool* pool : pools) {
        if (pool) mt_pool_free(pool);
    }
    for (int32_t path = 1; path < MT_STACK_PATHS; path++) {
        if (mt_stack_supported_paths() >> path & 1) printf("%s\n", mt_stack_path_name(path));
    }
    return 0;
}
