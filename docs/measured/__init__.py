"""Tables of measured figures, from the rows of results/reference. Each table is a function of the page it stands in."""
