"""Imported by a launcher before vLLM's modules: the host of ``start_bed``, and its executor."""

import start_bed

start_bed.pretend()
Executor = start_bed.executor()
