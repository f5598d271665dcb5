"""Files and tables: local disks and buckets, errors, schemas."""
