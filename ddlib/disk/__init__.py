"""What touches the disk: whole files, places, progress. Nothing in this folder shapes a result."""
