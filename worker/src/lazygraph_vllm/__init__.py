"""The vLLM side of lazygraph: captures CUDA graphs when a controller says so."""

__version__ = "0.1.0"
