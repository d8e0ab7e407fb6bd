#!/bin/sh
# systeminformation takes 0 for a value that nvidia-smi didn't tell: what `graphics()` says of an NVIDIA
# GPU lacks `utilizationGpu` for as long as it is idle, and `memoryUsed` while nothing is loaded. Its
# documentation calls the fields optional, for GPUs without them. Who keeps the last value, or leaves
# out what is unknown, never sees a GPU become idle, and a mean over GPUs is one of the busy ones.
# Seen with systeminformation 5.33.26 before stand-ins for lspci and nvidia-smi, which tell of three
# H200s (at work; loaded and idle; empty) in the form of those: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit systeminformation@5.33.26 >>npm.log 2>&1

mkdir bin
cat >bin/lspci <<'SH'
#!/bin/sh
for bus in 1b 43 52; do
  echo "$bus:00.0 3D controller: NVIDIA Corporation GH100 [H200 SXM 141GB] (rev a1)"
  printf '\tSubsystem: NVIDIA Corporation GH100 [H200 SXM 141GB]\n\n'
done
SH
cat >bin/nvidia-smi <<'SH'
#!/bin/sh
# It is asked for: driver, sub-device, name, bus, fan; memory in all, used and free; utilization of
# GPU and memory; temperature of both; power drawn and its limit; clocks of graphics and memory.
gpu="580.95.05, 0x18BE10DE, NVIDIA H200, 00000000"
echo "$gpu:1B:00.0, [N/A], 143771, 129030, 14112, 97, 41, 58, 71, 612.40, 700.00, 1980, 3201"
echo "$gpu:43:00.0, [N/A], 143771, 129030, 14112, 0, 0, 34, 45, 118.90, 700.00, 1980, 3201"
echo "$gpu:52:00.0, [N/A], 143771, 0, 143142, 0, 0, 30, 38, 76.10, 700.00, 345, 3201"
SH
chmod +x bin/lspci bin/nvidia-smi

cat >read.mjs <<'JS'
import { graphics } from "systeminformation";
for (const gpu of (await graphics()).controllers) {
  const { busAddress, utilizationGpu, memoryUsed, memoryFree, powerDraw } = gpu;
  console.log(JSON.stringify({ busAddress, utilizationGpu, memoryUsed, memoryFree, powerDraw }));
}
JS
PATH="$PWD/bin:$PATH" node read.mjs | tee output
cat >expected <<'TXT'
{"busAddress":"1b:00.0","utilizationGpu":97,"memoryUsed":129030,"memoryFree":14112,"powerDraw":612.4}
{"busAddress":"43:00.0","memoryUsed":129030,"memoryFree":14112,"powerDraw":118.9}
{"busAddress":"52:00.0","memoryFree":143142,"powerDraw":76.1}
TXT
cmp expected output
