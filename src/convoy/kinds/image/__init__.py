"""Images: contract and preprocessing, prepared form, data set, near-duplicates, baselines."""
