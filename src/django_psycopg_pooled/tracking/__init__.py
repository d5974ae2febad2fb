"""Which line of the user's code something belongs to, and what that thread was doing."""
