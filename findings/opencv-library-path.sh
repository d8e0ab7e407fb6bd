#!/bin/sh
# Importing cv2 on Linux sets LD_LIBRARY_PATH: a folder `lib64` above the packages, which need not
# be there, comes before what the variable held. The process itself keeps the loader's path that it
# began with, so nothing of its own needs this; whatever it starts afterwards inherits it.
# Seen with opencv-python-headless 4.13.0.92 and 5.0.0.93: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python

cat >path.py <<'PY'
import os
import subprocess
import sys
from pathlib import Path

before = os.environ["LD_LIBRARY_PATH"]
import cv2  # noqa: E402
import numpy as np  # noqa: E402

first, *rest = os.environ["LD_LIBRARY_PATH"].split(":")
site = Path(cv2.__file__).parents[1]
print("now:", os.path.relpath(first, site), *rest, "which is", "there" if Path(first).exists() else "not there")
child = [sys.executable, "-c", "import os; print(os.environ['LD_LIBRARY_PATH'].split(':')[1:])"]
print("of a child, after that folder:", subprocess.check_output(child, text=True).strip())
os.environ["LD_LIBRARY_PATH"] = before
print("put back, it works:", cv2.countNonZero(np.eye(3, dtype=np.uint8)))
PY
for version in 4.13.0.92 5.0.0.93; do
  python/bin/pip install -q "opencv-python-headless==$version" numpy
  echo "cv2 of $version"
  LD_LIBRARY_PATH=/given python/bin/python path.py
done | tee output
cat >expected <<'TXT'
cv2 of 4.13.0.92
now: ../lib64 /given which is not there
of a child, after that folder: ['/given']
put back, it works: 3
cv2 of 5.0.0.93
now: ../lib64 /given which is not there
of a child, after that folder: ['/given']
put back, it works: 3
TXT
cmp expected output
