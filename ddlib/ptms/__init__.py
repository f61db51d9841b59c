"""Pre-trained models (PTMs): frozen networks that judge synthetic images, and the pools they come in."""
