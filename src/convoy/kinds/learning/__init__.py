"""What the networks and data sets of all kinds share, with torch: candidates, batches, exact explanations."""
