"""Text -> a checked tree of plain values. No torch, nothing else of ours."""
