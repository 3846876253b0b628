"""Record and trace types, their store on disk, and their data frames. Nothing here imports torch."""
