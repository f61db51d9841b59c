"""Sweeps: grids of runs, carried out by Snakemake or in a few processes. And the study of the book, run and kept."""
