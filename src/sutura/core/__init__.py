"""What every room stands on: config, names, seeds, files. Imports nothing else of the project."""
