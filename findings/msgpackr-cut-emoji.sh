#!/bin/sh
# A JavaScript string that was cut inside an emoji, as slice(0, n) does, ends in half a surrogate
# pair. msgpackr packs the half by two rules: in a string of up to 63 UTF-16 units as three bytes
# that are no UTF-8, in a longer one as U+FFFD. So a reader takes the long text and not the short
# one; msgpackr's own makes three U+FFFD of it. Python's msgspec refuses it, by UnicodeDecodeError,
# which is none of its own errors: `except msgspec.MsgspecError` lets it through.
# Seen with msgpackr 2.1.3 and msgspec 0.22.0: `eda0bd` of 63 units, `efbfbd` of 64.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit msgpackr@2.1.3 >>npm.log 2>&1
python3 -m venv python
python/bin/pip install -q msgspec==0.22.0

cat >pack.mjs <<'JS'
import { Packr, unpack } from "msgpackr";
const packr = new Packr({ useRecords: false });
for (const units of [63, 64]) {
  const packed = packr.pack(`${"x".repeat(units - 1)}😀`.slice(0, units));
  console.log(units, unpack(packed).length, packed.subarray(-3).toString("hex"), packed.toString("hex"));
}
JS
cat >read.py <<'PY'
import sys

import msgspec

for line in sys.stdin:
    units, units_read, end, packed = line.split()
    try:
        told = ascii(msgspec.msgpack.decode(bytes.fromhex(packed), type=str)[-1])
    except msgspec.MsgspecError:
        told = "an error of msgspec's"
    except UnicodeDecodeError:
        told = "UnicodeDecodeError"
    print(f"{units} units: ends in {end}; msgpackr reads {units_read} units, msgspec {told}")
PY
node pack.mjs >packed
python/bin/python read.py <packed | tee output
cat >expected <<'TXT'
63 units: ends in eda0bd; msgpackr reads 65 units, msgspec UnicodeDecodeError
64 units: ends in efbfbd; msgpackr reads 64 units, msgspec '\ufffd'
TXT
cmp expected output
