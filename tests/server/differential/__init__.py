"""An app of statements that must come out the same whether they run plain or prepared."""
