#!/bin/sh
# Azure's LLM inference trace of 2024 writes times as Python prints them: a whole second has no
# fraction. pandas takes the shape of the first row for all, and where a later one differs
# read_csv(parse_dates=...) leaves the whole column as text, without an error or a warning.
# Two rows fewer, and the same call makes dates. date_format="ISO8601" reads both shapes.
# Seen with pandas 3.1.1 under -W error: `str`, then `datetime64[us, UTC]` twice.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pandas==3.1.1

cat >week.csv <<'CSV'
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
2024-05-10 00:00:01+00:00,76,15
CSV
cat >read.py <<'PY'
import pandas

dates = {"parse_dates": ["TIMESTAMP"]}
print(pandas.read_csv("week.csv", **dates)["TIMESTAMP"].dtype)
print(pandas.read_csv("week.csv", nrows=2, **dates)["TIMESTAMP"].dtype)
print(pandas.read_csv("week.csv", date_format="ISO8601", **dates)["TIMESTAMP"].dtype)
PY
python/bin/python -W error read.py | tee output
printf 'str\ndatetime64[us, UTC]\ndatetime64[us, UTC]\n' | cmp - output
