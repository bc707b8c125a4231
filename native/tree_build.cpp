#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tree.h"

namespace multitok {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Groups of the highest level, which every vector is compared with; more get a level above them. Measured.
constexpr int64_t kMostTopGroups = 8;

int64_t groups_of(int64_t nodes) { return (nodes + kGroup - 1) / kGroup; }

// Puts the codes in kd order.
class Order {
  public:
    Order(const Book& book, TreeBook* tree) : dim_(book.dim), rows_(book.rows.data()), tree_(tree), order_(book.size) {
        std::iota(order_.begin(), order_.end(), 0);
    }

    // Shares the codes [first, last) of the order out among `leaves` leaves from `leaf` on, evenly: none gets more than
    // 16 as long as last - first <= 16 leaves. Cuts fall between whole nodes of `unit` leaves, so that every node of
    // every level is a box of its own.
    void cut(int64_t first, int64_t last, int64_t leaf, int64_t leaves, int64_t unit) {
        if (leaves == 1) {
            std::copy(order_.begin() + first, order_.begin() + last, tree_->codes.data() + leaf * kGroup);
            return;
        }
        while (unit >= leaves) unit /= kGroup;
        const int64_t left = std::max(leaves / 2 / unit * unit, unit);
        const int64_t middle = first + (last - first) * left / leaves;
        if (first < middle && middle < last) {
            const float* column = rows_ + widest(first, last);
            std::nth_element(order_.begin() + first, order_.begin() + middle, order_.begin() + last,
                             [column, dim = dim_](int32_t a, int32_t b) {
                                 const float x = column[a * dim], y = column[b * dim];
                                 return x < y || (x == y && a < b);
                             });
        }
        cut(first, middle, leaf, left, unit);
        cut(middle, last, leaf + left, leaves - left, unit);
    }

  private:
    // The dimension in which the codes vary most. Any would be right; this gives tight boxes.
    int64_t widest(int64_t first, int64_t last) const {
        int64_t best = 0;
        double most = -1;
        for (int64_t d = 0; d < dim_; d++) {
            const double start = rows_[order_[first] * dim_ + d];
            double sum = 0, squares = 0;
            for (int64_t i = first; i < last; i++) {
                const double off = rows_[order_[i] * dim_ + d] - start;
                sum += off;
                squares += off * off;
            }
            const double spread = squares - sum * (sum / static_cast<double>(last - first));
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
    level->groups = groups_of(nodes);
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

bool tree_pays(int64_t dim, int64_t size) { return tree_fits(size, dim) && size >= 256; }

std::shared_ptr<TreeBook> make_tree(const Book& book) {
    auto tree = std::make_shared<TreeBook>();
    // Leaves in whole groups of the highest level's nodes: no box of a lower level is empty for want of leaves.
    int64_t leaves = groups_of(book.size), unit = 1;
    tree->level_count = 1;
    while (groups_of((leaves + unit - 1) / unit) > kMostTopGroups) {
        unit *= kGroup;
        tree->level_count++;
    }
    leaves = (leaves + unit - 1) / unit * unit;
    tree->leaves = leaves;
    tree->codes.reset(leaves * kGroup);
    std::fill_n(tree->codes.data(), leaves * kGroup, -1);
    Order(book, tree.get()).cut(0, book.size, 0, leaves, unit * kGroup);

    tree->lanes.reset(leaves * book.dim * kGroup);
    Boxes boxes = fill_leaves(book, tree.get());
    int64_t nodes = leaves;
    for (int64_t k = 0; k < tree->level_count; k++) {
        boxes = fill_level(boxes, nodes, book.dim, &tree->levels[k]);
        nodes = tree->levels[k].groups;
    }
    return tree;
}

TreeScratch::TreeScratch(const TreeBook& of)
    : tree(of),
      bounds(kTreeRows * of.levels[of.level_count - 1].groups * kGroup),
      lists(of.level_count * (kTreeList + kGroup)),
      near(kTreeList + kGroup) {}

TreeScratch::~TreeScratch() = default;

Scratch* make_tree_scratch(const Book& book, int64_t) { return new TreeScratch(*book.tree); }

int64_t tree_rows_per_block(const Book&) { return 16 * kTreeRows; }

}  // namespace multitok
