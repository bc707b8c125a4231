// The tree search with AVX-512.
#define MT_ISA tree_avx512
#include "cpu_features.h"
#include "tree_search.h"

namespace multitok {
namespace MT_ISA {

static bool supported() { return cpu_features().avx512; }

static const Path kPath = {supported, tree_rows_per_block, make_tree_scratch, search_tree_of};

}  // namespace MT_ISA

const Path* tree_avx512_path() { return &MT_ISA::kPath; }

}  // namespace multitok
