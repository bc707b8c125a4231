// The nearest code by boxes, for codes of few dimensions: most of the codebook is never looked at.
//
// The codes are put in kd order, cut at their middle along the dimension in which they spread most, until 16 are left:
// a leaf, one code a lane. Sixteen leaves stand under a branch, sixteen branches under a larger one and so on, each
// with the box (lowest and highest value of each dimension) of what it holds; one vector operation a dimension bounds
// the distance to 16 boxes. Few boxes are nearer to a vector than its nearest code, and only those are opened.
//
// MT_L2, values that float32 holds and one nearest code only; the search and its proof stand in tree_search.h.
#pragma once

#include <cstdint>
#include <memory>

#include "book.h"
#include "search.h"

namespace multitok {

constexpr int64_t kTreeDims = 10;     // the most dimensions; 12 would pay from about 260,000 codes on
constexpr int64_t kTreeLevels = 8;    // more than 2^31 codes need
constexpr int64_t kTreeRows = 64;     // vectors that are searched side by side
constexpr int64_t kTreeList = 1024;   // nodes of one level that wait to be opened
constexpr int64_t kTreeNodeBits = 26; // of an entry of such a list; the bits above are the vector's number
static_assert(kTreeRows <= int64_t{1} << (32 - kTreeNodeBits), "a vector's number fits");

// Boxes of the nodes of one level, 16 side by side; empty nodes lie at infinity.
struct TreeLevel {
    int64_t groups = 0;              // of 16 nodes
    Aligned<float> boxes;            // [groups][D][2][16] low and high
};

// The nodes of level 0 are the leaves; node i of level k holds the nodes 16 i to 16 i + 15 of level k - 1, of which the
// last may be empty.
struct TreeBook {
    int64_t leaves = 0;
    int64_t top = 0;                 // the highest level
    Aligned<float> lanes;            // [leaves][D][16] the codes in kd order, empty lanes infinite
    Aligned<int32_t> codes;          // [leaves][16] their indices, -1 in empty lanes
    TreeLevel levels[kTreeLevels];
    int64_t bytes() const;
};

// Whether a tree can be made for V codes of D dimensions (MT_L2, not float64).
bool tree_fits(int64_t size, int64_t dim);
// Whether it is faster than comparing with every code.
bool tree_pays(int64_t dim, int64_t size);
// Reads book.rows.
std::shared_ptr<TreeBook> make_tree(const Book& book);

struct TreeScratch final : Scratch {
    explicit TreeScratch(const TreeBook& of);
    ~TreeScratch() override;         // not inline: the files of the instruction sets must not hold a copy
    const TreeBook& tree;
    Aligned<uint32_t> lists;         // [levels][kTreeList + 16]
    Aligned<uint32_t> near;          // [kTreeList + 16]
};

Scratch* make_tree_scratch(const Book& book, int64_t nearest);
int64_t tree_rows_per_block(const Book& book);

}  // namespace multitok
