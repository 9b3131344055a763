"""Value tables: plain, sharded over processes, or in host memory."""
