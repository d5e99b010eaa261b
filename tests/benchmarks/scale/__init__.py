"""What the driver costs in a large sweep."""
