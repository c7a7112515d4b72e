"""What one run says: accuracy, activity, energy, equivalence, published logs."""
