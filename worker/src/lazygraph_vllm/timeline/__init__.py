"""Times what a start of vLLM spends, in every process, from inside; stock's as well as ours.

It changes nothing but the clock: each hook calls vLLM's own function and notes when it began and
ended. `lazygraph startup` asks for it by naming a folder.
"""
