// The tree search with AVX2 and FMA.
#define MT_ISA tree_avx2
#include "cpu_features.h"
#include "tree_search.h"

namespace multitok {
namespace MT_ISA {

static bool supported() { return cpu_features().avx2; }

static const Path kPath = {supported, tree_rows_per_block, make_tree_scratch, search_tree_of};

}  // namespace MT_ISA

const Path* tree_avx2_path() { return &MT_ISA::kPath; }

}  // namespace multitok
