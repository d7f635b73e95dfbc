"""Real models to serve, try and measure with, taken out of packages that ship them under free licences."""
