"""Public checkpoints, mapped onto the nets of this package: names and shapes, and nothing left over on either side."""
