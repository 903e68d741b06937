"""What the code knows about images and texts: contract, prepared form, data sets, networks, baselines."""
