#!/bin/sh
# Of a GPU in MIG slices NVIDIA's DCGM exporter has a row for each slice's memory and SMs, told apart by
# GPU_I_ID. NVIDIA's AIPerf, which reads its page for --gpu-telemetry, looks at the GPU's number alone:
# each row replaces the one before, and the last slice passes for the whole GPU. Of a slice that a server
# fills, before an idle one, AIPerf tells 0.04 GB and no activity; behind it, 68 GB and 91%.
# Seen with aiperf 0.13.0 and prometheus_client 0.26.0: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q --no-deps aiperf==0.13.0
python/bin/pip install -q aiofiles==24.1.0 aiohttp==3.13.2 cyclopts==4.5.0 jinja2==3.1.6 msgspec==0.22.0 \
  numpy==2.3.5 orjson==3.11.7 prometheus_client==0.26.0 psutil==7.1.3 pydantic==2.14.4 \
  pydantic-settings==2.16.3 pyyaml==6.0.4 pyzmq==26.4.0 rich==14.1.0 ruamel.yaml==0.18.17 2>pip.log

cat >read.py <<'PY'
from aiperf.gpu_telemetry.dcgm_collector import DCGMTelemetryCollector

SLICES = {"3g.71gb": (65000, 0.91), "1g.18gb": (37, 0.0)}  # MiB used, and SMs' activity
PAGE = """# TYPE DCGM_FI_DEV_FB_USED gauge
{}
# TYPE DCGM_FI_PROF_SM_ACTIVE gauge
{}
"""
collector = DCGMTelemetryCollector("http://127.0.0.1:9400/metrics")


def print_told(names):
    rows = {"DCGM_FI_DEV_FB_USED": [], "DCGM_FI_PROF_SM_ACTIVE": []}
    for id, name in enumerate(names, 1):
        labels = 'gpu="0",UUID="GPU-7",modelName="NVIDIA H200",'
        labels += f'GPU_I_PROFILE="{name}",GPU_I_ID="{id}"'
        for (metric, lines), value in zip(rows.items(), SLICES[name]):
            lines.append(f"{metric}{{{labels}}} {value}")
    page = PAGE.format(*map("\n".join, rows.values()))
    for record in collector._parse_metrics_to_records(page):
        told = record.telemetry_data
        memory, activity = told.nvidia_memory_used, told.nvidia_sm_utilization
        print(*names, f"GPU {record.gpu_index}: {memory:.2f} GB, SMs {activity:g}%")


print_told(["3g.71gb", "1g.18gb"])
print_told(["1g.18gb", "3g.71gb"])
PY
python/bin/python read.py | tee output
cat >expected <<'TXT'
3g.71gb 1g.18gb GPU 0: 0.04 GB, SMs 0%
1g.18gb 3g.71gb GPU 0: 68.16 GB, SMs 91%
TXT
cmp expected output
