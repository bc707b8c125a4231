// A pool of workers that share the blocks of a job; several callers may run jobs on it at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace multitok {

class ThreadPool {
  public:
    // `threads` in all: the caller works too, so threads - 1 are started, or fewer where the system gives fewer.
    // Throws std::system_error or std::bad_alloc where threads > 1 and none starts.
    explicit ThreadPool(int threads);
    // Waits for the workers; no job may be running.
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const;

    // Calls work(worker) on up to `workers` threads at once, at most once for each number in [0, workers): always for
    // 0, on the caller's thread, and for the others as workers come free before the caller's own call returns. One
    // that has not started by then never does, so `work` takes its blocks from a counter shared by all. Returns when
    // all that started have returned; the first exception of any is thrown here again.
    void run(int workers, const std::function<void(int worker)>& work);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Runs `work` for every block in [0, blocks), on `pool` where there is one, else on the caller alone.
// `make_worker(worker)` is called once on each thread that gets a block, and gives the function that is called with
// the numbers of its blocks. After an exception no further block starts.
void for_blocks(ThreadPool* pool, int64_t blocks,
                const std::function<std::function<void(int64_t block)>(int worker)>& make_worker);

}  // namespace multitok
