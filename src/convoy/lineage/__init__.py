"""From one name to all others: trace, rebuild, and DVC's records proven and mended."""
