"""The scripts: each reads top to bottom and leaves the logic to distill, teachers and students."""
