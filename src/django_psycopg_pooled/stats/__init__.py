"""How often, how long: numbers that can be added up over threads, processes and machines."""
