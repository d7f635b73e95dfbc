"""Simulations as files: their form, what is made of it, what came of a run, and how many devices a load needs."""
