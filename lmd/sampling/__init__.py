"""LMD's mathematics: energies, the guidance loop, masks and composition. It knows layouts, never the planner."""
