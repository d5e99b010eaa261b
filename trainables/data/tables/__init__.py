"""From files to tables: finding them, unpacking them, and reading every type as rows."""
