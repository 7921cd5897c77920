"""What users look at: layouts, sheets, attention and energies as pictures."""
