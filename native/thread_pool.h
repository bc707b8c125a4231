// A pool of workers that share the blocks of a job; several callers may run jobs on it at once.
#pragma once

#include <cstdint>
#include <functional>

namespace multitok {

class ThreadPool {
  public:
    // `threads` in all: the caller works too, so threads - 1 are started. Throws std::system_error where none starts.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const;

    // Calls work(begin_worker) on up to `workers` threads at once, each exactly once with its own number from 0 on,
    // the caller among them; returns when all have returned. `work` takes its blocks from an atomic counter of its
    // own, so that a worker that starts late finds nothing left to do. An exception in one is thrown here again.
    void run(int workers, const std::function<void(int worker)>& work);

  private:
    struct Impl;
    Impl* impl_;
};

// Runs `work` for every block in [0, blocks), on `pool` where there is one and it pays, else on the caller alone.
// `make_worker(worker)` is called once on each thread and gives the function that is called with block numbers.
void for_blocks(ThreadPool* pool, int64_t blocks,
                const std::function<std::function<void(int64_t block)>(int worker)>& make_worker);

}  // namespace multitok
