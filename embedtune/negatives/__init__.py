"""From candidates to negatives: mining, filters applied, the evidence of both, audit and judging."""
