#!/bin/sh
# Zeus' PowerMonitor is to find out how often a GPU's power changes and to read it twice as often. What it
# takes is the smaller of that and of 0, with which it starts: it reads without a pause, in a process for
# each of up to three kinds of power, and each takes a core. So do Zeus' gauge for Prometheus, and, of GPUs
# before Volta, ZeusMonitor; a period that is given it keeps to. It leaves out readings that equal the one
# before, so that by get_energy() a GPU at an even 60 W used 0 J.
# Seen with zeus 0.16.0, NVML being a module that changes its power ten times a second: as below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps zeus==0.16.0
python/bin/pip install -q numpy==2.3.5 httpx==0.28.1 2>log
mkdir sklearn  # It takes the trapezoidal rule from there.
echo 'from numpy import trapezoid; auc = lambda x, y: trapezoid(y, x)' >sklearn/metrics.py

cat >pynvml.py <<'PY'
import os
import time
from types import SimpleNamespace


class NVMLError(Exception):
    value = 1


def nvmlDeviceGetCount():
    return 1


def nvmlDeviceGetName(_):
    return "NVIDIA H200"


def nvmlDeviceGetC2cModeInfoV(_):
    return SimpleNamespace(isC2cEnabled=0)


def nvmlDeviceGetFieldValues(*_):
    os.write(readings, b".")
    milliwatts = 60_000 + (os.environ["GPU"] == "changing") * (int(time.time() * 10) % 50)
    return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=milliwatts))]


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    if name.startswith("NVMLError"):
        return type(name, (NVMLError,), {})
    return 0 if name.startswith("NVML_") else lambda *_: 0


readings = os.open("readings", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
PY
cat >read.py <<'PY'
import os
import time

from zeus.monitor.power import PowerMonitor

if __name__ == "__main__":
    for period in (None, 0.1):
        monitor = PowerMonitor([0], period, power_domains=["device_instant"])
        before, begin = os.path.getsize("readings"), time.time()
        time.sleep(3)
        rate = (os.path.getsize("readings") - before) / 3
        joules = monitor.get_energy(begin, time.time())[0]
        monitor.stop()
        often = "over 500" if rate > 500 else "10" if 5 < rate < 15 else rate
        used = "over 100" if joules > 100 else f"{joules:g}"
        gpu = f"{os.environ['GPU']} GPU, every {monitor.update_period} s"
        print(f"{gpu}: {often} readings a second, {used} J")
PY
for GPU in changing even; do GPU=$GPU PYTHONPATH=. timeout 60 python/bin/python read.py; done | tee output
cat >expected <<'TXT'
changing GPU, every 0.0 s: over 500 readings a second, over 100 J
changing GPU, every 0.1 s: 10 readings a second, over 100 J
even GPU, every 0.0 s: over 500 readings a second, 0 J
even GPU, every 0.1 s: 10 readings a second, 0 J
TXT
cmp expected output
