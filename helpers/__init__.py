"""What the notebooks need but do not teach. Each module says at its top what it is for."""
