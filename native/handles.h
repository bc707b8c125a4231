// The C handles whose insides more than one file needs.
#pragma once

#include "multitok_codebook.h"
#include "thread_pool.h"

struct mt_pool {
    multitok::ThreadPool pool;
    explicit mt_pool(int threads) : pool(threads) {}
};
