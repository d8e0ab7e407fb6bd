#!/bin/sh
# genai-bench leaves the requests of `--warmup-ratio` and `--cooldown-ratio` out of its tokens, but not
# their time out of the seconds that it divides by: a server of 100 tokens a second has 50 where a
# quarter is left out at each end, with requests per second as before. And its `error_rate`, which it
# would warn of from a half on, is 0 whatever fails: it is computed before the requests are counted.
# Seen with genai-bench 0.0.5, whose command hands its collectors start, end and ratios as is done here
# (genai_bench/cli/cli.py): the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q gevent==25.9.1 numpy==2.3.5 pydantic==2.13.0 rich==14.2.0 2>pip.log
# What else it asks for is for sending requests and for its reports.
python/bin/pip install -q --no-deps genai-bench==0.0.5

cat >collect.py <<'PY'
from genai_bench.metrics.aggregated_metrics_collector import AggregatedMetricsCollector
from genai_bench.metrics.metrics import RequestLevelMetrics
from genai_bench.metrics.request_metrics_collector import RequestMetricsCollector
from genai_bench.protocol import UserChatResponse

# One request at a time, a second and 100 tokens each, for 100 seconds; of ten, so many fail.
for ratio, failing in ((None, 0), (0.1, 0), (0.25, 0), (0.4, 0), (None, 6)):
    collector = AggregatedMetricsCollector()
    for second in range(100):
        if second % 10 < failing:
            collector.add_single_request_metrics(RequestLevelMetrics(error_code=500))
            continue
        request = RequestMetricsCollector()
        request.calculate_metrics(
            UserChatResponse(
                status_code=200,
                start_time=second,
                time_at_first_token=second + 0.01,
                end_time=second + 1,
                num_prefill_tokens=20,
                tokens_received=100,
            )
        )
        collector.add_single_request_metrics(request.metrics)
    collector.aggregate_metrics_data(0, 100, ratio, ratio)
    told = collector.aggregated_metrics
    print(
        f"ratios {ratio}: {told.mean_output_throughput_tokens_per_s:.0f} tokens/s,",
        f"{told.requests_per_second:.1f} requests/s, each {told.stats.output_throughput.mean:.0f} tokens/s;",
        f"{told.num_error_requests} of {told.num_requests} failed, error rate {told.error_rate}",
    )
PY
python/bin/python collect.py 2>log | tee output
cat >expected <<'TXT'
ratios None: 100 tokens/s, 1.0 requests/s, each 100 tokens/s; 0 of 100 failed, error rate 0
ratios 0.1: 80 tokens/s, 1.0 requests/s, each 100 tokens/s; 0 of 100 failed, error rate 0
ratios 0.25: 50 tokens/s, 1.0 requests/s, each 100 tokens/s; 0 of 100 failed, error rate 0
ratios 0.4: 20 tokens/s, 1.0 requests/s, each 100 tokens/s; 0 of 100 failed, error rate 0
ratios None: 40 tokens/s, 0.4 requests/s, each 100 tokens/s; 60 of 100 failed, error rate 0
TXT
cmp expected output || { cat log; exit 1; }
