"""Portuguese Wikipedia: the task, and the command that builds its rows."""
