"""What is installed here, which devices and kernels work, and what is missing for which command."""
