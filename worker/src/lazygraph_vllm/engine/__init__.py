"""EngineCore's process: the session, the commands, filling without a controller."""
