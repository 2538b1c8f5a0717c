"""A grid of trainings from raw folders to the papers' tables; every cell is an ordinary nnU-Net command."""
