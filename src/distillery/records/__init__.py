"""What lies on the disk: files, their records, and whether they are current."""
