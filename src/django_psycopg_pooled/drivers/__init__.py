"""One adapter for each driver, behind one Protocol. Import the adapter's module by name."""
