"""CMA-ES over the numbers of a NAMM."""
