"""What a process of the hub is set to before it works."""

import platform
import subprocess
import sys

import pytest

_HEAPS = """
import ctypes, sys, threading
from crm_core.system import share_one_heap

if sys.argv[1] == "shared":
    share_one_heap()
met = threading.Barrier(4)

def work():
    room = bytearray(100_000)
    met.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(None)
"""


def _heaps(how: str) -> int:
    command = [sys.executable, "-c", _HEAPS, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.count("<heap ")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives each thread a heap")
def test_the_threads_of_a_process_of_the_hub_share_one_heap() -> None:
    assert _heaps("alone") > 1
    assert _heaps("shared") == 1
