"""The real trlX on today's libraries: install (getting it), patches (what is mended and where), model, trainer, train (the call)."""
