# vLLM with the plugin. In a checkout: python -m pip wheel --no-deps -w deploy ./worker
#   && docker build -t lazygraph-engine:0.33.0 -f deploy/engine.Dockerfile .
FROM vllm/vllm-openai:v0.33.0
COPY deploy/lazygraph_vllm-*.whl /tmp/
# Its dependencies are vLLM's own: nothing is fetched.
RUN python3 -m pip install --no-deps --no-index /tmp/lazygraph_vllm-*.whl && rm /tmp/lazygraph_vllm-*.whl
