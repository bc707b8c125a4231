"""Files as read-only arrays, without a file handle for each.

Python's `mmap` (before 3.13) and so `numpy.memmap` keep a duplicate of the file handle for as long as the map lives.
Two handles a shard would meet the usual limit of 1,024 at 500 shards, so this asks the system directly.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
]  # fmt: skip
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def map_file(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file as a read-only array; pages are read when touched and given back when memory is short.

    Raises:
        OSError: The file cannot be opened or mapped.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        if not size:  # the system refuses an empty map
            return np.zeros(0, np.uint8)
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        if address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(handle)
    buffer = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(buffer, _libc.munmap, address, size).atexit = False
    return np.frombuffer(memoryview(buffer).toreadonly(), np.uint8)
