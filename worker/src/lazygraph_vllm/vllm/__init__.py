"""The only place that names vLLM: what differs by version, behind one interface.

``adapter`` is that interface, ``v26`` and ``v31`` implement it, ``choose`` picks one by version.
``allowed`` says what was tried on a GPU, ``engine_hooks`` and ``rank_hooks`` say where the plugin
hangs in vLLM. Everything outside this folder speaks of graphs, ranks and steps, and asks an
``Adapter`` for what vLLM calls them.

Nothing here is imported before vLLM is: ``import vllm`` inside functions is on purpose.
"""
