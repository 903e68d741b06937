"""From an ID to the state that it names: trace, check-out, rebuild; and DVC's records verified and mended."""
