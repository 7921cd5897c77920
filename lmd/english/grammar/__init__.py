"""How the pieces of a prompt belong together: one file for each kind of word that joins them."""
