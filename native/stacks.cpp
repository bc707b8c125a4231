// Integer convolution stacks: preparing the weights, and the flow of rows through the operations.
//
// A worker runs a band of rows of a few frames. Each operation makes its rows in order, one at a time, when the one
// behind it asks for them, and keeps the last kKept: so memory grows with the width alone, and what an operation reads
// is still in the cache. Bands repeat the rows around their edges, and get the same integers there.
//
// Frames of a group lie side by side, a column of zeros before, between and behind them: [0 f f f 0 g g g 0]. One
// call then makes a row of all of them, however narrow; the columns between are made too, and set to zero again.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "book.h"
#include "float_mode.h"
#include "handles.h"
#include "multitok_stacks.h"
#include "stack.h"
#include "thread_pool.h"

namespace multitok {
namespace {

constexpr int64_t kKept = 4;         // rows, a power of two; a residual block has three in use
constexpr int64_t kFullRow = 48;     // pixels of a group of frames at its smallest, where there are that many
constexpr double kThreadWork = 1 << 21;  // products below which a second thread costs more than it saves
constexpr int kLow = -1024, kHigh = 1023;

int64_t rounded_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

enum class Kind { kLoad, kConv, kQuantize, kFold2, kUnfold2 };

// What a path reads of a convolution.
struct Packed {
    int64_t words = 0, groups = 0;
    Aligned<int32_t> weights, bias;
    Aligned<float> scale;
};

// An operation and the rows it makes. `halvings` and `doublings` give its sides from those of the input.
struct Stage {
    Kind kind = Kind::kLoad;
    int64_t channels = 0, pitch = 0;  // of what it makes: values used, bytes from pixel to pixel
    int64_t value_bytes = 0;
    int halvings = 0, doublings = 0;
    bool padded = false;  // a convolution may read beyond its edges, where zeros must lie
    int stream = -1;      // MT_TO_S16_ADDED: the stage whose rows are added to

    int side = 0, inputs = 0, output = MT_TO_U8;
    bool pairs = false;
    std::shared_ptr<const Packed> packed;

    int64_t sized(int64_t side_of_input) const { return (side_of_input >> halvings) << doublings; }
};

struct OutOfRange {};

}  // namespace
}  // namespace multitok

struct mt_stack {
    std::vector<multitok::Stage> stages;
    const multitok::StackPath* path = nullptr;
    int64_t inputs = 0, outputs = 0;
    int folds = 0;        // both sides of the input are multiples of 2^folds
    double products = 0;  // for a pixel of the input
    double halo = 0;      // rows of the output that a band computes in vain, in work
};

namespace multitok {
namespace {

const StackPath* path_of(int32_t path) {
    switch (path) {
        case MT_STACK_PORTABLE: return stack_portable_path();
#ifdef MULTITOK_HAVE_AVX2
        case MT_STACK_AVX2: return stack_avx2_path();
#endif
#ifdef MULTITOK_HAVE_AVX_VNNI
        case MT_STACK_AVX_VNNI: return stack_avx_vnni_path();
#endif
#ifdef MULTITOK_HAVE_AVX512
        case MT_STACK_AVX512: return stack_avx512_path();
#endif
#ifdef MULTITOK_HAVE_AVX512_VNNI
        case MT_STACK_AVX512_VNNI: return stack_avx512_vnni_path();
#endif
        default: return nullptr;
    }
}

bool runs(int32_t path) {
    const StackPath* found = path_of(path);
    return found && found->supported();
}

// Weights in the order in which a path reads them: [blocks][side][words of a row of taps][outputs of the block].
std::shared_ptr<const Packed> pack(const mt_stack_op& op, int per_word, int64_t pixel_words) {
    auto packed = std::make_shared<Packed>();
    const int side = op.side;
    const int64_t padded = rounded_up(op.outputs, kOutputGroup);
    packed->words = side * pixel_words;
    packed->groups = padded / kOutputGroup;
    packed->weights.reset(padded * side * packed->words);
    packed->bias.reset(padded);
    packed->scale.reset(padded);
    std::copy_n(op.bias, op.outputs, packed->bias.data());
    std::copy_n(op.scale, op.outputs, packed->scale.data());
    int32_t* to = packed->weights.data();
    for (int64_t first = 0; first < padded; first += kBlockOutputs) {
        const int64_t lanes = std::min<int64_t>(kBlockOutputs, padded - first);
        for (int64_t tap = 0; tap < side * side; tap++) {
            for (int64_t word = 0; word < pixel_words; word++, to += lanes) {
                for (int64_t lane = 0; lane < lanes && first + lane < op.outputs; lane++) {
                    uint32_t bits = 0;
                    for (int i = 0; i < per_word; i++) {
                        const int64_t input = word * per_word + i;
                        if (input >= op.inputs) break;
                        const int32_t w = op.weights[((first + lane) * side * side + tap) * op.inputs + input];
                        bits |= (static_cast<uint32_t>(w) & (per_word == 4 ? 0xff : 0xffff)) << (32 / per_word * i);
                    }
                    std::memcpy(to + lane, &bits, 4);
                }
            }
        }
    }
    return packed;
}

Stage following(const Stage& source, Kind kind, int64_t channels, int64_t value_bytes) {
    Stage stage;
    stage.kind = kind;
    stage.channels = channels;
    stage.value_bytes = value_bytes;
    stage.pitch = rounded_up(channels, kOutputGroup) * value_bytes;
    stage.halvings = source.halvings;
    stage.doublings = source.doublings;
    return stage;
}

// Appends the stage of `op`; false where it does not fit. `quantized`: the stream that the last quantisation read.
bool append(const mt_stack_op& op, bool last, int* quantized, mt_stack* stack) {
    std::vector<Stage>& stages = stack->stages;
    const Stage& source = stages.back();
    const int source_number = static_cast<int>(stages.size()) - 1;
    const bool reads_input = source.kind == Kind::kLoad;
    const bool is_stream = (source.kind == Kind::kConv && source.output != MT_TO_U8) || source.kind == Kind::kUnfold2;
    const int activation_bytes = stack->path->activation_bytes;
    Stage stage;
    switch (op.kind) {
        case MT_OP_CONV: {
            if (is_stream || op.inputs != source.channels || (op.side != 1 && op.side != 3) || op.outputs < 1) return false;
            if (op.output < MT_TO_U8 || op.output > MT_TO_S32 || (op.output == MT_TO_S32) != last) return false;
            const int64_t bytes = op.output == MT_TO_U8 ? activation_bytes : op.output == MT_TO_S32 ? 4 : 2;
            stage = following(source, Kind::kConv, op.outputs, bytes);
            stage.side = op.side;
            stage.inputs = op.inputs;
            stage.output = op.output;
            stage.pairs = source.value_bytes == 2;
            if (op.output == MT_TO_S16_ADDED) {
                // The rows of the stream that are still wanted are at most as many as the convolutions and one.
                if (*quantized < 0 || source_number - *quantized > kKept - 1) return false;
                if (stages[*quantized].channels != op.outputs) return false;
                stage.stream = *quantized;
                *quantized = -1;
            }
            stage.packed = pack(op, stage.pairs ? 2 : 4, source.pitch / 4);
            stages.back().padded |= op.side == 3;
            break;
        }
        case MT_OP_QUANTIZE:
            if (!is_stream) return false;
            *quantized = source_number;
            stage = following(source, Kind::kQuantize, source.channels, activation_bytes);
            break;
        case MT_OP_FOLD2:
            if (is_stream || reads_input) return false;
            *quantized = -1;
            stage = following(source, Kind::kFold2, 4 * source.channels, activation_bytes);
            stage.doublings ? stage.doublings-- : stage.halvings++;
            stack->folds = std::max(stack->folds, stage.halvings);
            break;
        case MT_OP_UNFOLD2:
            if (!is_stream || source.channels % 4) return false;
            *quantized = -1;
            stage = following(source, Kind::kUnfold2, source.channels / 4, 2);
            stage.doublings++;
            break;
        default: return false;
    }
    stages.push_back(std::move(stage));
    return true;
}

// Rows that a band computes beyond its own, weighed by their work, as rows of the output.
void measure(mt_stack* stack) {
    double extra = 0, wasted = 0, work = 0;
    const Stage& last = stack->stages.back();
    const auto area = [](const Stage& s, double power) {
        double side = 1;
        for (int i = 0; i < s.doublings; i++) side *= 2;
        for (int i = 0; i < s.halvings; i++) side /= 2;
        return power == 2 ? side * side : side;
    };
    for (size_t i = stack->stages.size(); i-- > 0;) {
        const Stage& stage = stack->stages[i];
        if (stage.kind == Kind::kConv) {
            const double products = static_cast<double>(stage.side) * stage.side * stage.inputs * stage.channels * area(stage, 2);
            wasted += extra / area(stage, 1) * area(last, 1) * products;
            work += products;
            extra += stage.side - 1;
        } else if (stage.kind == Kind::kFold2) {
            extra *= 2;
        } else if (stage.kind == Kind::kUnfold2) {
            extra = extra / 2 + 1;
        }
    }
    stack->products = work;
    stack->halo = wasted / work;
}

bool make(const mt_stack_op* ops, int64_t count, int32_t path, mt_stack* stack) {
    if (path == MT_STACK_AUTO) {
        for (path = MT_STACK_PATHS - 1; !runs(path); path--) {
        }
    }
    stack->path = path_of(path);
    if (count < 2 || ops[0].kind != MT_OP_CONV || ops[0].inputs < 1) return false;
    Stage load;
    load.channels = ops[0].inputs;
    load.value_bytes = 2;
    load.pitch = rounded_up(load.channels, 2) * 2;
    stack->stages.push_back(std::move(load));
    int quantized = -1;
    for (int64_t i = 0; i < count; i++) {
        if (!append(ops[i], i == count - 1, &quantized, stack)) return false;
    }
    const Stage& last = stack->stages.back();
    if (last.kind != Kind::kConv) return false;
    stack->inputs = ops[0].inputs;
    stack->outputs = last.channels;
    measure(stack);
    return true;
}

// One call of mt_stack_run and how it is cut.
struct Job {
    const mt_stack& stack;
    const int16_t* input;
    int64_t frames, height, width;
    int32_t* output;
    int64_t group = 1, bands = 1;  // frames side by side, bands of rows of each

    int64_t groups() const { return (frames + group - 1) / group; }
};

class Worker {
  public:
    explicit Worker(const Job& job) : job_(job), lines_(job.stack.stages.size()) {
        for (size_t i = 0; i < lines_.size(); i++) {
            const Stage& stage = job.stack.stages[i];
            Lines& lines = lines_[i];
            lines.width = stage.sized(job.width);
            lines.height = stage.sized(job.height);
            lines.bytes = rounded_up((1 + job.group * (lines.width + 1) + kOverrun) * stage.pitch, 64);
            // Less than a register behind the last line is read by nothing, and the first column is zero for ever.
            lines.memory.reset(kKept * lines.bytes);
        }
    }

    void run(int64_t block) {
        const FloatMode mode;
        first_frame_ = block / job_.bands * job_.group;
        frames_ = std::min(job_.group, job_.frames - first_frame_);
        const int64_t band = block % job_.bands, last = static_cast<int64_t>(lines_.size()) - 1;
        const int64_t height = lines_[last].height;
        int64_t first = band * height / job_.bands;
        const int64_t end = (band + 1) * height / job_.bands;
        for (int64_t i = last; i >= 0; i--) {
            lines_[i].next = first;
            const Stage& stage = job_.stack.stages[i];
            if (stage.kind == Kind::kConv && stage.side == 3) first = std::max<int64_t>(first - 1, 0);
            if (stage.kind == Kind::kFold2) first *= 2;
            if (stage.kind == Kind::kUnfold2) first /= 2;
        }
        make_rows(last, end - 1);
    }

  private:
    struct Lines {
        int64_t width = 0, height = 0, bytes = 0, next = 0;
        Aligned<char> memory;
        char* row(int64_t y) { return memory.data() + (y & (kKept - 1)) * bytes; }
    };

    const Stage& stage(int64_t i) const { return job_.stack.stages[i]; }
    // Pixels of the frames and of the columns between them.
    int64_t pixels(int64_t i) const { return frames_ * (lines_[i].width + 1) - 1; }

    // Makes the rows of stage i up to row `y`.
    void make_rows(int64_t i, int64_t y) {
        for (int64_t& next = lines_[i].next; next <= y; next++) {
            switch (stage(i).kind) {
                case Kind::kLoad: load(next); break;
                case Kind::kConv: conv(i, next); break;
                case Kind::kQuantize: quantize(i, next); break;
                case Kind::kFold2: fold(i, next); break;
                case Kind::kUnfold2: unfold(i, next); break;
            }
            if (stage(i).padded) clear_columns(i, next);
        }
    }

    void clear_columns(int64_t i, int64_t y) {
        const int64_t pitch = stage(i).pitch;
        char* row = lines_[i].row(y);
        for (int64_t f = 1; f <= frames_; f++) std::memset(row + f * (lines_[i].width + 1) * pitch, 0, pitch);
    }

    void load(int64_t y) {
        const Stage& s = stage(0);
        const int64_t values = job_.width * job_.stack.inputs;
        for (int64_t f = 0; f < frames_; f++) {
            const int16_t* from = job_.input + ((first_frame_ + f) * job_.height + y) * values;
            unsigned outside = 0;
            for (int64_t i = 0; i < values; i++) {
                const auto shifted = static_cast<uint16_t>(from[i] - kLow);
                outside |= shifted & static_cast<uint16_t>(~(kHigh - kLow));
            }
            if (outside) throw OutOfRange{};
            char* to = lines_[0].row(y) + (1 + f * (job_.width + 1)) * s.pitch;
            if (s.pitch == s.channels * 2) {
                std::memcpy(to, from, static_cast<size_t>(values) * 2);
            } else {
                for (int64_t x = 0; x < job_.width; x++) {
                    std::memcpy(to + x * s.pitch, from + x * s.channels, static_cast<size_t>(s.channels) * 2);
                }
            }
        }
    }

    void conv(int64_t i, int64_t y) {
        const Stage& s = stage(i);
        const Stage& source = stage(i - 1);
        Lines& from = lines_[i - 1];
        const int64_t reach = s.side / 2;
        make_rows(i - 1, std::min(y + reach, from.height - 1));
        ConvRow row;
        row.taps = s.side;
        for (int64_t tap = 0; tap < s.side; tap++) {
            const int64_t at = y + tap - reach;
            row.rows[tap] = at < 0 || at >= from.height ? nullptr : from.row(at) + (1 - reach) * source.pitch;
        }
        row.pairs = s.pairs;
        row.pitch = source.pitch;
        row.words = s.packed->words;
        row.weights = s.packed->weights.data();
        row.bias = s.packed->bias.data();
        row.scale = s.packed->scale.data();
        row.groups = s.packed->groups;
        row.output = s.output;
        row.stream = s.stream < 0 ? nullptr : lines_[s.stream].row(y) + stage(s.stream).pitch;
        row.stream_pitch = s.pitch;
        row.to = lines_[i].row(y) + s.pitch;
        row.to_pitch = s.pitch;
        row.pixels = pixels(i);
        job_.stack.path->conv(row);
        if (s.output == MT_TO_S32) give(i, y);
    }

    void quantize(int64_t i, int64_t y) {
        make_rows(i - 1, y);
        const int64_t channels = stage(i).pitch / stage(i).value_bytes;
        const auto* from = reinterpret_cast<const int16_t*>(lines_[i - 1].row(y) + stage(i - 1).pitch);
        job_.stack.path->quantize(from, pixels(i) * channels, lines_[i].row(y) + stage(i).pitch);
    }

    void fold(int64_t i, int64_t y) {
        make_rows(i - 1, 2 * y + 1);
        const int64_t from_pitch = stage(i - 1).pitch, pitch = stage(i).pitch, width = lines_[i].width;
        const int64_t bytes = stage(i - 1).channels * stage(i).value_bytes;
        for (int64_t r = 0; r < 2; r++) {
            for (int64_t f = 0; f < frames_; f++) {
                const char* from = lines_[i - 1].row(2 * y + r) + (1 + f * (2 * width + 1)) * from_pitch;
                char* to = lines_[i].row(y) + (1 + f * (width + 1)) * pitch + 2 * r * bytes;
                for (int64_t x = 0; x < width; x++, to += pitch, from += 2 * from_pitch) {
                    std::memcpy(to, from, static_cast<size_t>(bytes));
                    std::memcpy(to + bytes, from + from_pitch, static_cast<size_t>(bytes));
                }
            }
        }
    }

    void unfold(int64_t i, int64_t y) {
        make_rows(i - 1, y / 2);
        const int64_t from_pitch = stage(i - 1).pitch, pitch = stage(i).pitch, width = lines_[i - 1].width;
        const int64_t bytes = stage(i).channels * stage(i).value_bytes;
        for (int64_t f = 0; f < frames_; f++) {
            const char* from = lines_[i - 1].row(y / 2) + (1 + f * (width + 1)) * from_pitch + 2 * (y % 2) * bytes;
            char* to = lines_[i].row(y) + (1 + f * (2 * width + 1)) * pitch;
            for (int64_t x = 0; x < width; x++, to += 2 * pitch, from += from_pitch) {
                std::memcpy(to, from, static_cast<size_t>(bytes));
                std::memcpy(to + pitch, from + bytes, static_cast<size_t>(bytes));
            }
        }
    }

    void give(int64_t i, int64_t y) {
        const Lines& lines = lines_[i];
        const int64_t pitch = stage(i).pitch, outputs = job_.stack.outputs;
        for (int64_t f = 0; f < frames_; f++) {
            const char* from = lines_[i].row(y) + (1 + f * (lines.width + 1)) * pitch;
            int32_t* to = job_.output + ((first_frame_ + f) * lines.height + y) * lines.width * outputs;
            for (int64_t x = 0; x < lines.width; x++) {
                std::memcpy(to + x * outputs, from + x * pitch, static_cast<size_t>(outputs) * 4);
            }
        }
    }

    const Job& job_;
    std::vector<Lines> lines_;
    int64_t first_frame_ = 0, frames_ = 0;
};

// Small frames go side by side, tall ones in bands, so that threads have as much to do.
void cut(int64_t threads, Job* job) {
    int64_t narrowest = job->width;
    for (const Stage& stage : job->stack.stages) narrowest = std::min(narrowest, stage.sized(job->width));
    const int64_t fitting = (kFullRow + narrowest - 1) / narrowest, shared = (job->frames + threads - 1) / threads;
    job->group = std::max<int64_t>(1, std::min(fitting, shared));
    if (threads == 1) return;
    const int64_t height = job->stack.stages.back().sized(job->height);
    double least = 0;
    for (int64_t bands = 1; bands <= std::min(height, 4 * threads); bands++) {
        const int64_t rounds = (job->groups() * bands + threads - 1) / threads;
        const double halo = bands > 1 ? job->stack.halo : 0;
        const double cost = static_cast<double>(rounds) * (static_cast<double>(height) / static_cast<double>(bands) + halo);
        if (bands > 1 && cost >= least) continue;
        least = cost;
        job->bands = bands;
    }
}

}  // namespace
}  // namespace multitok

using namespace multitok;

uint32_t mt_stack_supported_paths(void) {
    uint32_t paths = 0;
    for (int32_t path = 1; path < MT_STACK_PATHS; path++) paths |= static_cast<uint32_t>(runs(path)) << path;
    return paths;
}

const char* mt_stack_path_name(int32_t path) {
    static const char* const names[MT_STACK_PATHS] = {"auto", "portable", "avx2", "avx-vnni", "avx512", "avx512-vnni"};
    return path >= 0 && path < MT_STACK_PATHS ? names[path] : nullptr;
}

int32_t mt_stack_new(const mt_stack_op* ops, int64_t count, int32_t path, mt_stack** stack) {
    if (path != MT_STACK_AUTO && !runs(path)) return MT_UNSUPPORTED;
    try {
        auto made = std::make_unique<mt_stack>();
        if (!make(ops, count, path, made.get())) return MT_UNSUPPORTED;
        *stack = made.release();
        return MT_OK;
    } catch (const std::bad_alloc&) {
        return MT_OUT_OF_MEMORY;
    }
}

void mt_stack_free(mt_stack* stack) { delete stack; }

int32_t mt_stack_run(const mt_stack* stack, mt_pool* pool, const int16_t* input, int64_t frames, int64_t height,
                     int64_t width, int32_t* output) {
    const int64_t folds = (int64_t{1} << stack->folds) - 1;
    if (frames < 0 || height < 1 || width < 1 || (height & folds) || (width & folds)) return MT_UNSUPPORTED;
    if (frames == 0) return MT_OK;
    const double work = stack->products * static_cast<double>(frames) * static_cast<double>(height) * static_cast<double>(width);
    ThreadPool* workers = pool && work > kThreadWork ? &pool->pool : nullptr;
    Job job{*stack, input, frames, height, width, output};
    cut(workers ? workers->threads() : 1, &job);
    try {
        for_blocks(workers, job.groups() * job.bands, [&](int) {
            auto worker = std::make_shared<Worker>(job);
            return [worker](int64_t block) { worker->run(block); };
        });
        return MT_OK;
    } catch (const OutOfRange&) {
        return MT_OUT_OF_RANGE;
    } catch (const std::bad_alloc&) {
        return MT_OUT_OF_MEMORY;
    }
}
