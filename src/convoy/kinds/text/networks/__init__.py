"""The networks for texts, one file each."""
