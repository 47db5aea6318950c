"""From kernels to what a person reads: predictions composed, records for JSON, and the self-contained page."""
