"""What sees: backbone to decoded queries."""
