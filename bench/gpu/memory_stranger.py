"""Takes BYTES of the first visible GPU, says so, and gives them back when its input ends.

python3 bench/gpu/memory_stranger.py BYTES

The bytes are what the device has less of while this runs: the CUDA context is part of them.
"""

from __future__ import annotations

import ctypes
import sys


def check(status: int, what: str) -> None:
    if status:
        print(f"failed: {what} gave CUDA driver error {status}", flush=True)
        sys.exit(1)


def main() -> None:
    wanted = int(sys.argv[1])
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    check(cuda.cuInit(0), "cuInit")
    check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "a context")
    check(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    check(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
    # A context takes about half a GiB on data-centre GPUs; the driver doesn't tell how much.
    own = min(wanted, 512 << 20)
    address = ctypes.c_uint64()
    size = max(2 << 20, wanted - own)
    check(cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)), "cuMemAlloc")
    print(f"{size} bytes and a context", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
