"""Sweeps: grids of runs, carried out by Snakemake. Nothing here computes a result."""
