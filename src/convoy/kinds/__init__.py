"""All that is known of images and of texts: contract, prepared form, data sets, networks, baselines."""
