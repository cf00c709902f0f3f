"""Run folders, the assembly of a Detector from a configuration, and where weights come from."""
