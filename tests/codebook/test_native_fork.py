"""A process may fork while the native search is at work: no child hangs, and each searches with threads of its own.

Every program runs by itself, so that a hang ends at its time limit, and has no other threads than those it starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from multitok.codebook import native

pytestmark = [
    pytest.mark.skipif(native.available() is not None, reason=str(native.available())),
    pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc"),
]

SETUP = """
import gc, os, sys, threading, time
import numpy as np
from multitok.codebook import native

rng = np.random.default_rng(0)
codebook = rng.standard_normal((256, 16)).astype(np.float32)
vectors = rng.standard_normal((3000, 16)).astype(np.float32)

def matrix(x):
    return native.Matrix(x.ctypes.data, "float32", *x.shape, x.shape[1])

book = native.NativeCodebook(matrix(codebook), metric="l2")

def search(threads):
    codes = np.empty(len(vectors), np.int32)
    book.search(matrix(vectors), nearest=1, codes=codes.ctypes.data, threads=threads)
    return codes

expected = search(1)

def right(threads):
    return bool((search(threads) == expected).all())

def in_child(work):
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def threads_now():
    return len(os.listdir("/proc/self/task"))
"""


def run(program: str) -> str:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SETUP + program]
    # NumPy's own threads would come and go with a fork.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        raise
    assert process.returncode == 0, err
    return out


def test_a_child_of_a_used_pool_searches_and_so_does_its_child() -> None:
    program = """
assert right(3)
def with_a_grandchild():
    return right(3) and in_child(lambda: right(3)) and right(3)
print(in_child(with_a_grandchild), right(3))
"""
    assert run(program) == "True True\n"


def test_forks_in_the_middle_of_searches() -> None:
    program = """
stop, wrong, rounds = False, [], [0, 0]
def repeat(caller):
    while not stop:
        rounds[caller] += 1
        # Different numbers, so that pools are made and freed all the time.
        wrong.extend([] if right(2 + (rounds[caller] + caller) % 3) else [caller])
callers = [threading.Thread(target=repeat, args=(caller,)) for caller in range(2)]
for caller in callers: caller.start()
while not all(rounds): time.sleep(0.001)
children = [in_child(lambda: right(2) and right(4)) for _ in range(30)]
stop = True
for caller in callers: caller.join()
print(all(children), wrong)
"""
    assert run(program) == "True []\n"


def test_a_child_starts_its_own_threads_and_leaves_the_parents_alone() -> None:
    program = """
before = threads_now()
assert right(4)
assert threads_now() == before + 3
def alone_then_not():
    mine = [threads_now()]
    right(4)
    mine.append(threads_now())
    native._current = None  # the pool of the child goes
    gc.collect()
    mine.append(threads_now())
    return mine == [1, 4, 1]
print(in_child(alone_then_not), threads_now() - before, right(4))
"""
    assert run(program) == "True 3 True\n"


def test_a_child_drops_the_inherited_pool_without_waiting_for_threads_it_does_not_have() -> None:
    program = """
assert right(4)
def drop():
    native._current = None
    gc.collect()
    return right(2)
print(in_child(drop), right(4))
"""
    assert run(program) == "True True\n"


def test_another_number_of_threads_replaces_the_pool() -> None:
    program = """
before, counts = threads_now(), []
for threads in (4, 2, 1, 3):
    assert right(threads)
    counts.append(threads_now() - before)
print(counts)
"""
    assert run(program) == "[3, 1, 1, 2]\n"


def test_small_searches_start_no_threads() -> None:
    program = """
before = threads_now()
vectors, expected = vectors[:8], expected[:8]
print(right(4), threads_now() - before)
"""
    assert run(program) == "True 0\n"


def test_multiprocessing_with_fork() -> None:
    program = """
import multiprocessing
assert right(3)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(right, [1, 2, 3, 4]))
"""
    assert run(program) == "[True, True, True, True]\n"


def test_a_process_ends_while_a_daemon_thread_searches() -> None:
    program = """
def repeat():
    while True:
        search(3)
threading.Thread(target=repeat, daemon=True).start()
time.sleep(0.1)
print("end")
"""
    for _ in range(3):
        assert run(program) == "end\n"
