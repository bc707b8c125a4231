// What thread_pool.h promises, tried out; prints the promise that is broken and ends with 1.
// Compiled and run by tests/codebook/test_native_pool.py, with and without the thread sanitizer.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "thread_pool.h"

using multitok::for_blocks;
using multitok::ThreadPool;

namespace {

void require(bool kept, const char* promise) {
    if (kept) return;
    std::printf("broken: %s\n", promise);
    std::exit(1);
}

// A door that threads wait at until it is opened.
class Door {
  public:
    void open() {
        std::lock_guard<std::mutex> lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return open_; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
};

// Runs one job and checks that every block ran once, by workers of different numbers.
void run_and_check(ThreadPool* pool, int64_t blocks) {
    std::vector<int> runs(static_cast<size_t>(blocks), 0);
    std::mutex mutex;
    std::multiset<int> workers;
    for_blocks(pool, blocks, [&](int worker) {
        std::lock_guard<std::mutex> lock(mutex);
        workers.insert(worker);
        auto mine = std::make_shared<int64_t>(0);  // memory of one worker, as the search has
        return [&runs, mine](int64_t block) {
            runs[static_cast<size_t>(block)]++;
            ++*mine;
        };
    });
    for (int count : runs) require(count == 1, "every block runs once");
    const std::set<int> different(workers.begin(), workers.end());
    require(different.size() == workers.size(), "make_worker is called once for each worker");
    const int limit = pool ? pool->threads() : 1;
    const bool in_range = different.empty() || (*different.begin() >= 0 && *different.rbegin() < limit);
    require(in_range, "workers are numbered from 0");
    require((blocks == 0) == different.empty(), "no worker is made where there is no block");
}

void every_block_once() {
    for (int threads : {1, 2, 3, 5}) {
        ThreadPool pool(threads);
        require(pool.threads() == threads, "threads() is what was asked for");
        for (int64_t blocks : {0, 1, 2, 3, 7, 1000}) run_and_check(&pool, blocks);
    }
    run_and_check(nullptr, 0);
    run_and_check(nullptr, 10);
}

void several_callers_at_once() {
    ThreadPool pool(3);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; caller++) {
        callers.emplace_back([&pool, caller] {
            for (int job = 0; job < 200; job++) run_and_check(&pool, 1 + (job * 7 + caller) % 40);
        });
    }
    for (std::thread& caller : callers) caller.join();
}

void a_job_inside_a_job() {
    ThreadPool pool(3);
    for_blocks(&pool, 20, [&](int) { return [&](int64_t) { run_and_check(&pool, 5); }; });
}

void both_threads_work_at_once() {
    ThreadPool pool(2);
    std::mutex mutex;
    std::condition_variable changed;
    int inside = 0;
    // Each block waits for the other: with one thread this would never end.
    for_blocks(&pool, 2, [&](int) {
        return [&](int64_t) {
            std::unique_lock<std::mutex> lock(mutex);
            inside++;
            changed.notify_all();
            changed.wait(lock, [&] { return inside == 2; });
        };
    });
}

void a_busy_pool_delays_nobody() {
    ThreadPool pool(3);
    Door all_busy, release;
    std::atomic<int> busy{0};
    std::thread first([&] {
        pool.run(3, [&](int) {
            if (++busy == 3) all_busy.open();
            release.wait();
        });
    });
    all_busy.wait();
    run_and_check(&pool, 50);  // would never return if it waited for the two workers
    release.open();
    first.join();
}

void an_exception_comes_back() {
    ThreadPool pool(3);
    for (int round = 0; round < 100; round++) {
        std::atomic<int64_t> ran{0};
        bool caught = false;
        ThreadPool* const mine = round % 2 ? &pool : nullptr;
        try {
            for_blocks(mine, 1000, [&](int) {
                return [&](int64_t block) {
                    ran++;
                    if (block == round) throw std::runtime_error("block");
                };
            });
        } catch (const std::runtime_error&) {
            caught = true;
        }
        require(caught, "an exception in a block comes back");
        require(mine || ran == round + 1, "after an exception no further block starts");
    }
    bool caught = false;
    try {
        for_blocks(&pool, 10, [](int) -> std::function<void(int64_t)> { throw std::bad_alloc(); });
    } catch (const std::bad_alloc&) {
        caught = true;
    }
    require(caught, "an exception in make_worker comes back");
    run_and_check(&pool, 100);

    // Only the worker throws, while the caller's own part goes well.
    Door started;
    caught = false;
    try {
        pool.run(2, [&](int worker) {
            if (worker == 0) return started.wait();
            started.open();
            throw std::runtime_error("worker");
        });
    } catch (const std::runtime_error&) {
        caught = true;
    }
    require(caught, "an exception of a worker comes back to the caller");
}

void pools_come_and_go() {
    for (int round = 0; round < 200; round++) {
        ThreadPool pool(2 + round % 3);
        if (round % 2) run_and_check(&pool, 10);
    }
}

}  // namespace

int main() {
    every_block_once();
    several_callers_at_once();
    a_job_inside_a_job();
    both_threads_work_at_once();
    a_busy_pool_delays_nobody();
    an_exception_comes_back();
    pools_come_and_go();
    std::printf("kept\n");
}
