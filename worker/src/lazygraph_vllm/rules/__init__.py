"""Rules that both sides of an engine share, mirrored from the controller's. Pure."""
