#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "tree.h"

namespace multitok {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Nodes of the highest level, which every vector is compared with; more get a level above them. Measured: no more than
// two groups of 16.
constexpr int64_t kMostTopNodes = 32;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Codes that a node of a level has room for.
int64_t room_of(int64_t level) {
    int64_t room = kGroup;
    for (; level > 0; level--) room *= kGroup;
    return room;
}

// Puts the codes in kd order.
class Order {
  public:
    Order(const Book& book, TreeBook* tree)
        : dim_(book.dim), rows_(book.rows.data()), tree_(tree), order_(book.size), keys_(book.size) {
        std::iota(order_.begin(), order_.end(), 0);
    }

    // Shares the codes [first, last) of the order out, evenly, among `count` nodes of `level` from `node` on, which
    // have room for them, cutting by halves; and those of each node among as few children as have room.
    void share(int64_t first, int64_t last, int64_t level, int64_t node, int64_t count) {
        if (count == 1 && level == 0) {
            std::copy(order_.begin() + first, order_.begin() + last, tree_->codes.data() + node * kGroup);
        } else if (count == 1) {
            share(first, last, level - 1, node * kGroup, divide_up(last - first, room_of(level - 1)));
        } else {
            const int64_t left = count / 2, middle = first + (last - first) * left / count;
            cut(first, middle, last);
            share(first, middle, level, node, left);
            share(middle, last, level, node + left, count - left);
        }
    }

  private:
    // Orders the codes [first, last) so that those before `middle` come before the others in the widest dimension.
    void cut(int64_t first, int64_t middle, int64_t last) {
        const float* column = rows_ + widest(first, last);
        for (int64_t i = first; i < last; i++) keys_[i] = key_of(column[order_[i] * dim_], order_[i]);
        select(first, middle, last);
        for (int64_t i = first; i < last; i++) order_[i] = static_cast<int32_t>(keys_[i] & 0xffffffff);
    }

    // Brings the middle - first smallest of the keys [first, last), which all differ, to the front: std::nth_element
    // without branches to guess, nearly twice as fast.
    void select(int64_t first, int64_t middle, int64_t last) {
        uint64_t* keys = keys_.data();
        while (first < middle && middle < last) {
            random_ = random_ * 6364136223846793005u + 1442695040888963407u;
            const uint64_t skip = (random_ >> 33) % static_cast<uint64_t>(last - first);
            const uint64_t a = keys[first], b = keys[first + static_cast<int64_t>(skip)], c = keys[last - 1];
            const uint64_t pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
            int64_t front = first;
            for (int64_t i = first; i < last; i++) {
                const uint64_t key = keys[i];
                keys[i] = keys[front];
                keys[front] = key;
                front += key < pivot;
            }
            (middle < front ? last : first) = front;  // unchanged where the pivot is the least: try another
        }
    }

    // Integers in the order of the values, equal values in that of the codes.
    static uint64_t key_of(float value, int32_t code) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        bits ^= bits >> 31 ? 0xffffffff : 0x80000000;
        return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(code);
    }

    // The dimension in which the codes vary most, judged by 500 to 1000 of them. Any would be right; this gives tight
    // boxes.
    int64_t widest(int64_t first, int64_t last) const {
        const int64_t step = std::max<int64_t>((last - first) / 500, 1);
        const float* start = rows_ + order_[first] * dim_;
        double sums[kTreeDims] = {}, squares[kTreeDims] = {};
        for (int64_t i = first; i < last; i += step) {
            const float* row = rows_ + order_[i] * dim_;
            for (int64_t d = 0; d < dim_; d++) {
                const double off = static_cast<double>(row[d]) - static_cast<double>(start[d]);
                sums[d] += off;
                squares[d] += off * off;
            }
        }
        int64_t best = 0;
        double most = -1;
        for (int64_t d = 0; d < dim_; d++) {
            const double spread = squares[d] - sums[d] * (sums[d] / static_cast<double>(divide_up(last - first, step)));
            if (spread > most) {
                most = spread;
                best = d;
            }
        }
        return best;
    }

    int64_t dim_;
    const float* rows_;
    TreeBook* tree_;
    std::vector<int32_t> order_;
    std::vector<uint64_t> keys_;
    uint64_t random_ = 1;
};

// Lowest and highest values of nodes, [nodes][D]; infinite for nodes that hold no code.
struct Boxes {
    std::vector<float> low, high;
    Boxes(int64_t nodes, int64_t dim) : low(nodes * dim, kInfinity), high(nodes * dim, -kInfinity) {}
    void include(int64_t at, float least, float most) {
        low[at] = std::min(low[at], least);
        high[at] = std::max(high[at], most);
    }
};

Boxes fill_leaves(const Book& book, TreeBook* tree) {
    const int64_t dim = book.dim;
    Boxes boxes(tree->leaves, dim);
    for (int64_t slot = 0; slot < tree->leaves * kGroup; slot++) {
        const int64_t leaf = slot / kGroup, code = tree->codes[slot];
        for (int64_t d = 0; d < dim; d++) {
            const float value = code < 0 ? kInfinity : book.rows[code * dim + d];
            tree->lanes[(leaf * dim + d) * kGroup + slot % kGroup] = value;
            if (code >= 0) boxes.include(leaf * dim + d, value, value);
        }
    }
    return boxes;
}

// Writes `boxes` into a level and returns the boxes of its groups, which are the nodes of the level above.
Boxes fill_level(const Boxes& boxes, int64_t nodes, int64_t dim, TreeLevel* level) {
    level->groups = divide_up(nodes, kGroup);
    level->boxes.reset(level->groups * dim * 2 * kGroup);
    Boxes above(level->groups, dim);
    for (int64_t node = 0; node < level->groups * kGroup; node++) {
        for (int64_t d = 0; d < dim; d++) {
            const int64_t group = node / kGroup, at = node * dim + d;
            const bool empty = node >= nodes || boxes.low[at] == kInfinity;
            float* to = level->boxes.data() + (group * dim + d) * 2 * kGroup + node % kGroup;
            to[0] = empty ? kInfinity : boxes.low[at];
            to[kGroup] = empty ? kInfinity : boxes.high[at];
            if (!empty) above.include(group * dim + d, boxes.low[at], boxes.high[at]);
        }
    }
    return above;
}

}  // namespace

int64_t TreeBook::bytes() const {
    int64_t sum = lanes.bytes() + codes.bytes();
    for (const TreeLevel& level : levels) sum += level.boxes.bytes();
    return sum;
}

bool tree_fits(int64_t size, int64_t dim) {
    return dim >= 1 && dim <= kTreeDims && size >= 1 && size < (int64_t{1} << (kTreeNodeBits + 2));
}

// Measured with AVX-512 on Gaussian vectors and codes, worse than uniform ones, against int16 products with VNNI: at
// V = 32 * 2^D 0.9 to 1.7 times as fast, at four times as many codes 1.6 to 4 times.
bool tree_pays(int64_t dim, int64_t size) { return tree_fits(size, dim) && size >= int64_t{32} << dim; }

std::shared_ptr<TreeBook> make_tree(const Book& book) {
    auto tree = std::make_shared<TreeBook>();
    int64_t top = 0;
    while (divide_up(book.size, room_of(top)) > kMostTopNodes) top++;
    const int64_t top_nodes = divide_up(book.size, room_of(top));
    tree->top = top;
    tree->leaves = top_nodes * (room_of(top) / kGroup);
    tree->codes.reset(tree->leaves * kGroup);
    std::fill_n(tree->codes.data(), tree->leaves * kGroup, -1);
    Order(book, tree.get()).share(0, book.size, top, 0, top_nodes);

    tree->lanes.reset(tree->leaves * book.dim * kGroup);
    Boxes boxes = fill_leaves(book, tree.get());
    int64_t nodes = tree->leaves;
    for (int64_t level = 0; level <= top; level++) {
        boxes = fill_level(boxes, nodes, book.dim, &tree->levels[level]);
        nodes = tree->levels[level].groups;
    }
    return tree;
}

TreeScratch::TreeScratch(const TreeBook& of)
    : tree(of), lists((of.top + 1) * (kTreeList + kGroup)), near(kTreeList + kGroup) {}

TreeScratch::~TreeScratch() = default;

Scratch* make_tree_scratch(const Book& book, int64_t) { return new TreeScratch(*book.tree); }

int64_t tree_rows_per_block(const Book&) { return 16 * kTreeRows; }

}  // namespace multitok
