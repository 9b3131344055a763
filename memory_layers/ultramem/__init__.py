"""UltraMem: Tucker scores, implicit value expansion, and the layer made of them."""
