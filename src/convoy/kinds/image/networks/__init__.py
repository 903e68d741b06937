"""The networks for images, one file each."""
