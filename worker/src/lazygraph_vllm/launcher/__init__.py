"""Starts vLLM by fork from a process that has imported it: a start without imports.

``python -m lazygraph_vllm.launcher`` imports vLLM, makes no CUDA context, and listens on a Unix
socket. ``client.py`` stands for ``vllm serve …`` wherever a command is expected. Between the two
stands a keeper for each server: it is the server's parent, so a launcher that ends takes nobody
along and no exit code is lost.

    client ── request, stdin, stdout, stderr ──> launcher ── fork ──> keeper ── fork ──> server
       └────────── signals ──> <── exit code ────────────────────────────┘
"""
