"""From a command to a result: recipes, search, tracking, reports and export."""
