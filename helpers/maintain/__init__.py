"""What only maintainers run: publishing, stored outputs, recorded runs, the embedded models, the bench."""
