"""Choose where a stage gets the teacher's outputs from: the disk, or the teacher itself."""
