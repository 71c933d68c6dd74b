"""Action architectures over shared 2D backbones; `registry` is the table of them."""
