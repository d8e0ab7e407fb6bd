#!/bin/sh
# msgpackr packs JavaScript numbers of 2^32 and more as float64, though they are whole and safe.
# A reader with types, such as Python's msgspec, then refuses them where it expects an int.
# Seen with msgpackr 2.1.3 and msgspec 0.22.0: 4294967295 is `ceffffffff` (uint32),
# 4294967296 `cb41f0000000000000` (float64); as BigInt it is `d30000000100000000` (int64).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit msgpackr@2.1.3 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q msgspec==0.22.0

cat >pack.mjs <<'JS'
import { Packr } from "msgpackr";
const packr = new Packr({ useRecords: false });
for (const value of [2 ** 32 - 1, 2 ** 32, BigInt(2 ** 32)]) {
  console.log(packr.pack(value).toString("hex"));
}
JS
cat >read.py <<'PY'
import sys
import msgspec
for line in sys.stdin:
    try:
        print(msgspec.msgpack.decode(bytes.fromhex(line), type=int))
    except msgspec.ValidationError as error:
        print(error)
PY
node pack.mjs | tee packed
python/bin/python read.py <packed | tee read
printf 'ceffffffff\ncb41f0000000000000\nd30000000100000000\n' | cmp - packed
printf '4294967295\nExpected `int`, got `float`\n4294967296\n' | cmp - read
