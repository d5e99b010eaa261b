"""How many trials a pack holds, and the memory that it takes."""
