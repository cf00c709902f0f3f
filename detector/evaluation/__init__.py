"""From detections to figures, errors, intervals and pictures."""
