"""Connections and loans. Knows no Django, no driver but its Protocol, and no statement."""
