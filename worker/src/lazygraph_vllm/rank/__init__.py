"""Each rank: captures, what a step looks up, memory, timing."""
