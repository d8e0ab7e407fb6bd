"""Compares vLLM's sources with what the plugin's adapters rely on. Imports neither."""
