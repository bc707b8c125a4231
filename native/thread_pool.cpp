#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace multitok {

namespace {

// One call of run(), on the caller's stack; everything but `work` is guarded by the pool's mutex.
struct Job {
    const std::function<void(int)>& work;
    int workers;
    int started = 1;  // the caller has number 0
    int running = 0;  // workers inside `work`, the caller not counted
    std::exception_ptr error = nullptr;
    std::condition_variable all_returned{};
};

}  // namespace

struct ThreadPool::Impl {
    std::mutex mutex;
    std::condition_variable work_or_stop;
    std::deque<Job*> open;  // jobs that want more workers, oldest first
    bool stop = false;
    std::vector<std::thread> workers;

    void worker_loop();
    void stop_and_join();
};

void ThreadPool::Impl::worker_loop() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
        work_or_stop.wait(lock, [this] { return stop || !open.empty(); });
        if (stop) return;
        Job& job = *open.front();
        const int worker = job.started++;
        job.running++;
        if (job.started == job.workers) open.pop_front();
        lock.unlock();
        std::exception_ptr error;
        try {
            job.work(worker);
        } catch (...) {
            error = std::current_exception();
        }
        lock.lock();
        if (error && !job.error) job.error = std::move(error);
        // Under the lock: once the caller sees 0 it returns, and the job is gone.
        if (--job.running == 0) job.all_returned.notify_one();
    }
}

void ThreadPool::Impl::stop_and_join() {
    {
        std::lock_guard<std::mutex> lock(mutex);
        stop = true;
    }
    work_or_stop.notify_all();
    for (std::thread& worker : workers) worker.join();
}

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
    try {
        impl_->workers.reserve(static_cast<size_t>(std::max(threads - 1, 0)));
        for (int i = 1; i < threads; i++) impl_->workers.emplace_back([impl = impl_.get()] { impl->worker_loop(); });
    } catch (...) {  // no thread or no memory for one: those that run are enough
        if (impl_->workers.empty()) throw;
    }
}

ThreadPool::~ThreadPool() { impl_->stop_and_join(); }

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::run(int workers, const std::function<void(int)>& work) {
    workers = std::min(workers, threads());
    if (workers <= 1) return work(0);

    Job job{work, workers};
    {
        std::lock_guard<std::mutex> lock(impl_->mutex);
        impl_->open.push_back(&job);
    }
    // All at once is one system call; waking a few sleepers too many costs less than waking most one by one.
    if (2 * workers > threads()) {
        impl_->work_or_stop.notify_all();
    } else {
        for (int i = 1; i < workers; i++) impl_->work_or_stop.notify_one();
    }

    std::exception_ptr error;
    try {
        work(0);
    } catch (...) {
        error = std::current_exception();
    }

    std::unique_lock<std::mutex> lock(impl_->mutex);
    const auto waiting = std::find(impl_->open.begin(), impl_->open.end(), &job);
    if (waiting != impl_->open.end()) impl_->open.erase(waiting);
    job.all_returned.wait(lock, [&job] { return job.running == 0; });
    if (!error) error = job.error;
    lock.unlock();
    if (error) std::rethrow_exception(error);
}

void for_blocks(ThreadPool* pool, int64_t blocks,
                const std::function<std::function<void(int64_t)>(int)>& make_worker) {
    std::atomic<int64_t> next{0};
    const auto work = [&](int worker) {
        int64_t block = next.fetch_add(1, std::memory_order_relaxed);
        if (block >= blocks) return;
        try {
            const std::function<void(int64_t)> run_block = make_worker(worker);
            for (; block < blocks; block = next.fetch_add(1, std::memory_order_relaxed)) run_block(block);
        } catch (...) {
            next.store(blocks, std::memory_order_relaxed);
            throw;
        }
    };
    if (pool == nullptr || blocks <= 1) return work(0);
    pool->run(static_cast<int>(std::min<int64_t>(pool->threads(), blocks)), work);
}

}  // namespace multitok
