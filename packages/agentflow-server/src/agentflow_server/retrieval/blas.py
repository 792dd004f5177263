"""Keeps NumPy's matrix library to one thread a call; several calls then run side by side in threads of ours.

Its own threads wait by spinning: on a server with few processors that costs more than it gains, and makes the event
loop wait (measured: 12.5 texts encoded a processor second instead of 7).
"""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np


@cache
def one_thread_a_call() -> bool:
    """Whether the matrix library could be told. It is NumPy's own OpenBLAS; with another one nothing changes."""
    folder = Path(np.__file__).parent.parent
    for path in [*folder.glob("numpy.libs/*openblas*"), *folder.glob("numpy/.dylibs/*openblas*")]:
        library = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads"):
            if hasattr(library, name):
                getattr(library, name)(1)
                return True
    return False
