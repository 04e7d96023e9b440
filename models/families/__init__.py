"""Model families, one file each; torch is imported inside build()."""
