"""Hard negatives: candidates are retrieved, filtered and judged, and the evidence of each decision is kept."""
